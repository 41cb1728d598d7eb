"""Jinja's sandbox for a template of unknown origin, with read-only data and limits."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import FunctionType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import BlockReference, LoopContext, Macro, Undefined
from jinja2.sandbox import SandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Cycler, Joiner, Namespace

from llm_magics._util.table_text import describe_table, format_table, is_table
from llm_magics.errors import TemplateError
from llm_magics.sandbox.budget import (
    MAX_CHARACTERS,
    MAX_FIELD,
    Budget,
    Steps,
    limit_widths,
    refuse,
)
from llm_magics.sandbox.copies import NoDataError, Row, TooMuchError, copied
from llm_magics.sandbox.frames import Facade, Places, facade, raw

_PLAIN = (str, int, float, bool, list, tuple, dict, set, frozenset, type(None))
_DATES = (dt.date, dt.time, dt.timedelta)

# The attributes of each type that a template may use. Methods are called within the limits.
# fmt: off
_ATTRIBUTES: list[tuple[tuple[type, ...], frozenset[str]]] = [
    (
        (str,),
        frozenset([
            "capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find",
            "format", "format_map", "index", "isalnum", "isalpha", "isascii", "isdecimal",
            "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace",
            "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition",
            "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust",
            "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip",
            "swapcase", "title", "upper", "zfill"
        ]),
    ),
    ((dict,), frozenset({"items", "keys", "values", "get", "copy"})),
    ((list, tuple), frozenset({"count", "index", "copy"})),
    (
        (set, frozenset),
        frozenset([
            "copy", "union", "intersection", "difference", "symmetric_difference", "issubset",
            "issuperset", "isdisjoint"
        ]),
    ),
    ((int, float, complex), frozenset({"real", "imag", "numerator", "denominator", "is_integer"})),
    (
        _DATES,
        frozenset([
            "year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo",
            "days", "seconds", "microseconds", "quarter", "dayofweek", "dayofyear", "week",
            "weekday", "isoweekday", "isoformat", "date", "time", "total_seconds", "strftime",
            "day_name", "month_name"
        ]),
    ),
    (
        (LoopContext,),
        frozenset([
            "index", "index0", "revindex", "revindex0", "first", "last", "length", "depth",
            "depth0", "previtem", "nextitem", "cycle", "changed"
        ]),
    ),
    ((Cycler,), frozenset({"next", "reset", "current"})),
    ((Macro,), frozenset({"name"})),
]
# fmt: on
_CALLED = (Macro, BlockReference, LoopContext, Joiner)
# Jinja's implementation of these filters is slow for large texts.
_SLOW = frozenset({"striptags", "urlize", "wordwrap", "pprint"})
_MAX_OF_SLOW = 100_000
_MAX_NUMBER = 1_000_000
_MAX_DIGITS = 300
# Neither pattern reads past the next "%(", because long texts with many of them would take hours.
_PART = re.compile(r"%(?:\([^()]*\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?")
_NAME_WITH_BRACKETS = re.compile(r"%\([^()]*\(")


_HINT = "A prompt file can use strings, numbers, lists, mappings and tables; convert the value in a cell."


def copy_named_data(names: set[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return read-only copies of the ``variables`` whose names a template uses.

    Raises:
        TemplateError: one of them is not data, or is too large to copy.
    """
    found = {}
    for name in names & set(variables):
        try:
            found[name] = copied(variables[name], facade)
        except TooMuchError as error:
            msg = f"The template uses {{{{ {name} }}}}, which {error}."
            raise TemplateError(msg, hint="Pass a part of it, or a DataFrame.") from None
        except NoDataError as error:
            holds = "is" if type(variables[name]).__name__ == str(error) else "holds"
            msg = f"The template uses {{{{ {name} }}}}, and {name} {holds} a {error}."
            raise TemplateError(msg, hint=_HINT) from None
    return found


class Sandbox(SandboxedEnvironment):
    """The Jinja environment for one rendering, with its `Budget`."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self, functions: Mapping[str, Callable[..., Any]], **options: Any) -> None:
        self.budget = Budget()
        super().__init__(
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            finalize=jinja2.pass_context(lambda _, value: self.display_text(value)),
            optimized=False,
            **options,
        )
        self.concat = self.budget.join  # type: ignore[method-assign]
        filters: dict[str, Callable[..., Any]] = {
            **self.filters,
            "sum": _sum,
            "table": lambda value, rows=20: format_table(raw(value), rows),
            "describe": lambda value: describe_table(raw(value)),
        }
        self.filters = {name: self._limited(name, each) for name, each in filters.items()}
        self.tests = {name: self._limited(name, each) for name, each in self.tests.items()}
        # Nodes of the syntax tree use these filters; a template cannot set the name of a filter.
        self.filters["_steps"] = self._steps
        self.filters["_checked"] = self._checked
        self.globals |= {**functions, "sum": _sum}
        for name, each in list(self.globals.items()):
            self.globals[name] = self._limited(name, each)
        self._own = {id(each) for each in self.globals.values()}

    def add_function(self, name: str, function: Callable[..., Any]) -> None:
        """Allow nodes of the syntax tree to call ``function`` by ``name``."""
        self.globals[name] = function
        self._own.add(id(function))

    def fill_in(self, text: str, tree: nodes.Template, variables: Mapping[str, Any]) -> str:
        """Render ``tree``, which was parsed from ``text``, with ``variables``."""
        self.budget.spend(len(text))
        self._count_in(tree)
        parts: list[str] = []
        length = 0
        for part in self.from_string(tree).generate(variables):
            length += len(part)
            if length > MAX_CHARACTERS:
                refuse(f"produces more than {MAX_CHARACTERS:,} characters")
            parts.append(part)
            self.budget.spend(len(part))
        return "".join(parts)

    def display_text(self, value: Any) -> str:
        """Return the text that the prompt contains for the value of an expression."""
        if isinstance(value, Undefined):
            return str(value)  # raises UndefinedError
        self._refuse_machinery(value)
        self._checked(value)
        text = str(value)
        # Ends with a newline, because text right after a table would be read as a part of it.
        text = f"{text}\n" if isinstance(value, Facade) and is_table(raw(value)) else text
        self.budget.spend(len(text))
        return text

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may use ``attr``, which must be data or a read-only method."""
        if attr.startswith("_") or not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, Facade | Row | Namespace):
            return True
        return any(isinstance(obj, kinds) and attr in names for kinds, names in _ATTRIBUTES)

    def is_safe_callable(self, obj: Any) -> bool:
        """Return whether a template may call ``obj``: a method of data, or an object of Jinja."""
        if id(obj) in self._own or isinstance(obj, (*_CALLED, _Format)):
            return True
        owner = getattr(obj, "__self__", None)
        readable = (*_PLAIN, *_DATES)
        if type(owner) in readable or isinstance(owner, _DATES):
            return True
        return isinstance(owner, Facade | Row | LoopContext | Cycler)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``obj`` within the limits."""
        for value in (*args, *kwargs.values()):
            self._checked(value)
        self.budget.spend(0)
        owner = getattr(obj, "__self__", None)
        if type(owner) in (str, list, dict, tuple):
            args = tuple(self.budget.as_list(value) for value in args)
            self._limit_method(obj.__name__, owner, args, kwargs)
        if isinstance(owner, _DATES):
            self._limit_numbers("strftime", (*args, *kwargs.values()))
        return self._checked(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute ``left operator right`` within the limits."""
        for value in (left, right):
            if not isinstance(value, Undefined):
                self._refuse_machinery(value)
                self._checked(value)
        if operator == "*":
            self._limit_product(left, right)
            self._limit_product(right, left)
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            self._limit_power(left, right)
        if operator == "%" and isinstance(left, str):
            self._limit_format(left, right)
        return self._checked(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return the ``format`` method of a text, with limits."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        return _Format(self, value.__self__, value.__name__)

    def _steps(self, values: Any) -> Any:
        if isinstance(values, Undefined):
            return values
        if isinstance(values, Facade | Row) or hasattr(values, "__len__"):
            return Steps(self.budget, values)
        return self.budget.steps(values)

    def _checked(self, value: Any) -> Any:
        return value if isinstance(value, Undefined) else self.budget.check(value)

    def _refuse_machinery(self, value: Any) -> None:
        if isinstance(value, (*_CALLED, Namespace, Cycler, Places)) or callable(value):
            msg = f"The template inserts a {type(value).__name__}."
            raise TemplateError(msg, hint="Insert its data, or call it.")

    def _limited(self, name: str, function: Any) -> Callable[..., Any]:
        """Return a filter, test or function that checks the sizes of arguments and result."""
        passed = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

        @wraps(function, updated=("__dict__",) if isinstance(function, FunctionType) else ())
        def limited(*args: Any, **kwargs: Any) -> Any:
            values = [self.budget.as_list(value) for value in args[passed:]]
            for value in (*values, *kwargs.values()):
                if name not in ("callable", "defined", "undefined", "default", "d", "sameas"):
                    self._refuse_namespace(value)
                self._checked(value)
            self._limit_filter(name, values, kwargs)
            result = function(*args[:passed], *values, **kwargs)
            return self._checked(self.budget.as_list(result))

        return limited

    def _refuse_namespace(self, value: Any) -> None:
        if isinstance(value, Namespace):
            self._refuse_machinery(value)

    def _limit_filter(self, name: str, values: list[Any], kwargs: Mapping[str, Any]) -> None:
        first = values[0] if values else None
        rest = [*values[1:], *kwargs.values()]
        self._limit_numbers(name, rest if name != "lipsum" else [*values, *rest])
        if name in _SLOW and self.budget.weigh(first) > _MAX_OF_SLOW:
            refuse(f"uses {name} on more than {_MAX_OF_SLOW:,} characters")
        if name == "format":
            self._limit_format(str(first), (*values[1:], *kwargs.values()))
        if name == "indent":
            widest = max((_length(value) for value in rest), default=4)
            self.budget.spend(widest * (str(first).count("\n") + 1))
        if name == "tojson":
            self.budget.spend(self.budget.weigh(first) * (1 + max(map(_length, rest), default=0)))
        if name == "replace" and len(rest) > 1:
            self._limit_replace(str(first), str(rest[0]), str(rest[1]))
        if name == "join" and rest:
            self.budget.spend(max(map(_length, rest)) * _count(first))
        if name == "map" and len(values) > 1:
            self.budget.spend(_count(first))

    def _limit_numbers(self, name: str, values: Iterable[Any]) -> None:
        most = {"round": _MAX_DIGITS, "lipsum": 100, "tojson": 20}.get(name, _MAX_NUMBER)
        for value in values:
            if isinstance(value, int) and abs(value) > most:
                refuse(f"passes {name} a number above {most:,}")
            if name == "strftime" and isinstance(value, str):
                self.limit_format_of_dates(value)

    def limit_format_of_dates(self, text: str) -> None:
        """Limit the widths of fields in a format of ``strftime``."""
        widths = re.findall(r"\d+", text)
        limit_widths(widths)
        self.budget.spend(sum(map(int, widths)))

    def _limit_method(
        self, name: str, owner: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.budget.spend(self.budget.weigh(owner) // 16)
        if not isinstance(owner, str):
            return
        if name in ("center", "ljust", "rjust", "zfill"):
            self._limit_numbers(name, args)
        if name == "expandtabs":
            widest = max(map(_length, (*args, *kwargs.values())), default=8)
            self.budget.spend(widest * owner.count("\t"))
        if name == "replace" and len(args) > 1:
            self._limit_replace(owner, str(args[0]), str(args[1]))
        if name == "join" and args:
            self.budget.spend(len(owner) * _count(args[0]) + self.budget.weigh(args[0]))

    def _limit_replace(self, text: str, old: str, new: str) -> None:
        self.budget.spend(len(text) + text.count(old) * len(new))

    def _limit_product(self, times: Any, value: Any) -> None:
        if isinstance(times, int) and isinstance(value, str | list | tuple):
            self.budget.spend(max(0, times) * max(1, self.budget.weigh(value)) if value else 0)

    def _limit_power(self, base: int, exponent: int) -> None:
        if abs(base) > 1 and abs(exponent) * base.bit_length() > MAX_FIELD:
            refuse("produces a number that is too large")

    def _limit_format(self, text: str, values: Any) -> None:
        parts = _PART.findall(text)
        for widths in parts:
            limit_widths(widths)
        if _NAME_WITH_BRACKETS.search(text):  # _PART does not match after such a name
            limit_widths(re.findall(r"\d+|\*", text))
        held = values if isinstance(values, tuple) else (values,)
        if isinstance(values, dict):
            held = tuple(values.values())
        for value in held:
            self._refuse_machinery(value)
        longest = max((self._text_length(value) for value in held), default=0)
        self.budget.spend(len(text) + len(parts) * longest)

    def _text_length(self, value: Any) -> int:
        return len(value) if isinstance(value, str) else 8 * self.budget.weigh(value) + len(str(value)) * isinstance(value, Facade)  # fmt: skip

    def _count_in(self, tree: nodes.Template) -> None:
        """Add the counting of loop iterations, and checks of values in operators and literals."""
        for loop in tree.find_all(nodes.For):
            loop.iter = _call("_steps", loop.iter)
        for comparison in tree.find_all(nodes.Compare):
            comparison.expr = _call("_checked", comparison.expr)
            for operand in comparison.ops:
                operand.expr = _call("_checked", operand.expr)
        for joined in tree.find_all(nodes.Concat):
            joined.nodes = [_call("shown", each) for each in joined.nodes]
        for item in tree.find_all(nodes.Getitem):
            if isinstance(item.arg, nodes.Slice):
                item.node = _call("_checked", item.node)
        self.filters["shown"] = self.display_text
        _have_literals_checked(tree)


def _have_literals_checked(tree: nodes.Node) -> None:
    for node in list(tree.find_all(nodes.Node)):
        for field, value in node.iter_fields():
            if isinstance(value, list):
                setattr(node, field, [_literal_checked(each) for each in value])
            else:
                setattr(node, field, _literal_checked(value))


def _literal_checked(value: Any) -> Any:
    is_literal = isinstance(value, nodes.List | nodes.Dict) or (
        isinstance(value, nodes.Tuple) and value.ctx == "load"
    )
    return _call("_checked", value) if is_literal else value


def _call(name: str, value: Any) -> nodes.Expr:
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


class _Format:
    """The method ``format`` of a text, with limited fields and a limited result."""

    def __init__(self, sandbox: Sandbox, text: str, name: str) -> None:
        self._sandbox = sandbox
        self._text = text
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        if self._name == "format_map":
            (kwargs,), args = args, ()
        return str(_Formatter(self._sandbox).vformat(self._text, args, kwargs))


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        sandbox: Sandbox = self._env  # type: ignore[assignment]
        sandbox.limit_format_of_dates(format_spec)
        sandbox._refuse_machinery(value)
        sandbox._checked(value)
        text = super().format_field(value, format_spec)
        sandbox.budget.spend(len(text))
        return text

    def convert_field(self, value: Any, conversion: Any) -> Any:
        sandbox: Sandbox = self._env  # type: ignore[assignment]
        sandbox._refuse_machinery(value)
        sandbox._checked(value)
        return super().convert_field(value, conversion)


def _length(value: Any) -> int:
    """Return the number of characters that a width (a number) or a separator (a text) adds."""
    return len(value) if isinstance(value, str) else int(value) if isinstance(value, int) else 1


def _count(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def _sum(values: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    """Return the sum of numbers; sums of lists are refused, because they take quadratic time."""
    total = start
    for value in values:
        item = value if attribute is None else _attribute(value, attribute)
        if isinstance(item, str | list | tuple | dict) or isinstance(total, str | list | tuple):
            msg = f"sum needs numbers, got {type(item).__name__}."
            raise TemplateError(msg, hint="Join strings with | join.")
        total = total + item
    return total


def _attribute(value: Any, name: Any) -> Any:
    for part in str(name).split("."):
        key = int(part) if part.isdigit() else part
        value = value[key]
    return value
