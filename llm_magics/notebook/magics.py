"""``%%llm``, ``%llm``, ``%embed`` and ``%%embed``: each reads its line and hands on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.magic import (
    Magics,
    cell_magic,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)

from llm_magics.notebook import parsers

if TYPE_CHECKING:
    from pandas import DataFrame


@magics_class
class LLMMagics(Magics):  # type: ignore[misc]
    """Language models in a cell."""

    @needs_local_scope
    @no_var_expand
    @cell_magic("llm")
    def llm_cell(self, line: str, cell: str, local_ns: Mapping[str, Any]) -> Any:
        """Ask a model the prompt in the lines below; {{ names }} are the notebook's variables.

        %%llm [MODEL ...] [-o NAME] [-s SYSTEM] [-f markdown|text|code|json|df]
              [-t TEMPLATE] [-p KEY=VALUE ...] [--schema FIELDS] [--image X ...] [--thread [NAME]]
              [--tools F,G]
              [--temperature T] [--max-tokens N] [--top-p P] [--seed N] [--stop TEXT]
              [--fresh] [--dry-run] [--no-stream] [--save NAME] [--yes]

        The answer is shown as it comes, and kept in _llm. With -o ans: ans.text, ans.code,
        ans.json(), ans.df(), ans.usage, ans.timing. Two or more models are compared.

        -t NAME asks the prompt in prompts/NAME.md, of which the cell is {{ input }}; --save NAME
        makes one of the cell. --thread goes on with a conversation: the cell's turn in it is
        replaced when the cell runs again. --tools lets the model call functions of the notebook, each
        call after a question unless --yes. --dry-run shows what would be sent, and its cost.
        """
        from llm_magics.notebook import prompt_cell

        parsed = parsers.llm_cell_parser().parse(line)
        return prompt_cell.answer_cell(self.shell, parsed, cell, self._seen_from(local_ns))

    @needs_local_scope
    @no_var_expand
    @line_magic("llm")
    def llm_line(self, line: str, local_ns: Mapping[str, Any]) -> Any:
        """Do something about models: %llm help says what."""
        from llm_magics.notebook import commands

        return commands.run(self.shell, line, self._seen_from(local_ns))

    @needs_local_scope
    @no_var_expand
    @line_magic("embed")
    def embed_line(self, line: str, local_ns: Mapping[str, Any]) -> Any:
        """Turn texts into vectors.

        %embed EXPR [--into COLUMN] [-o NAME] [--model MODEL] [--batch-size N] [--concurrency N]
               [--too-long truncate|chunk-mean|error] [--on-error null|raise] [--dimensions N]
               [--prefix TEXT] [--dry-run] [--yes]

        EXPR is a column (df.text, df["text"]) or a list. --into puts the vectors into a column
        of the same frame; -o keeps them in a variable; with neither they are the result.
        Vectors are kept as they come: after an interrupt or a crash, the same line sends only
        what is missing.
        """
        from llm_magics.notebook import embed_cell as embedding

        return embedding.embed_expression(self.shell, line, self._seen_from(local_ns))

    @no_var_expand
    @cell_magic("embed")
    def embed_cell(self, line: str, cell: str) -> DataFrame | None:
        """Turn the lines below, one text a line, into a DataFrame of texts and vectors.

        %%embed [-o NAME] [--model MODEL] [--batch-size N] [--concurrency N]
                [--too-long truncate|chunk-mean|error] [--on-error null|raise] [--dimensions N]
                [--prefix TEXT] [--dry-run] [--yes]
        """
        from llm_magics.notebook import embed_cell as embedding

        return embedding.embed_lines(self.shell, line, cell)

    def _seen_from(self, local_ns: Mapping[str, Any]) -> Mapping[str, Any]:
        """The variables in sight where the magic stands, which may be inside a function."""
        return {**self.shell.user_ns, **local_ns}
