"""Watch what a test does outside its own folder and this machine, and what Windows would refuse."""

from __future__ import annotations

import os
import re
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

# What Python and the tools of the tests keep beside the sources.
_CACHES = ("__pycache__", ".coverage", ".hypothesis", ".pytest_cache", "matplotlib")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Names that are resolved nowhere (RFC 6761): a test may ask for one to see the error.
_NOWHERE = (".test", ".invalid", ".example")
_RESERVED = re.compile(
    r"(CON|PRN|AUX|NUL|COM[0-9¹²³]|LPT[0-9¹²³]|CONIN\$|CONOUT\$) *(\..*)?", re.IGNORECASE
)
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")

_hooked: list[bool] = []
_reached: list[str] | None = None
_folders: tuple[str, ...] = ()


def is_name_on_windows(name: str) -> bool:
    """Whether Windows takes ``name`` for a file or folder."""
    is_bad = re.search(r'[<>:"/\\|?*\x00-\x1f]', name) or name.endswith((".", " "))
    return bool(name) and not is_bad and not _RESERVED.fullmatch(name)


@contextmanager
def watched(*folders: Path) -> Iterator[list[str]]:
    """
    What this process reaches for meanwhile, and should not.

    Hosts that are not this machine, to which the connection is refused; files that are changed
    outside ``folders`` and the temporary one; and, by llm_magics, files that are replaced or
    removed while they are open here, and names that Windows does not take.
    """
    global _reached, _folders  # noqa: PLW0603 (a hook cannot be removed)
    if not _hooked:
        sys.addaudithook(_notice)
        _hooked.append(True)
    _folders = tuple(os.path.realpath(each) for each in (*folders, tempfile.gettempdir(), "/dev"))
    _reached = reached = []
    try:
        yield reached
    finally:
        _reached = None


def _notice(event: str, arguments: tuple[Any, ...]) -> None:
    if _reached is None:
        return
    if event == "open":
        path, mode, flags = arguments
        if flags & _WRITING or any(letter in (mode or "") for letter in "wax+"):
            _notice_file(path)
    elif event in ("os.mkdir", "sqlite3.connect"):
        _notice_file(arguments[0])
    elif event in ("os.remove", "os.rename"):
        changed = arguments[:1] if event == "os.remove" else arguments[:2]
        for path in changed:
            _notice_file(path)
            _notice_open_file(path)
    elif event == "socket.connect":
        _notice_host(arguments[1][0] if isinstance(arguments[1], tuple) else None)
    elif event == "socket.getaddrinfo":
        _notice_host(arguments[0])


def _notice_file(name: Any) -> None:
    if _reached is None or not isinstance(name, (str, bytes, os.PathLike)):
        return
    path = Path(os.path.realpath(os.fsdecode(name)))
    is_inside = any(path.is_relative_to(folder) for folder in _folders)
    is_cache = any(part.startswith(_CACHES) for part in path.parts)
    if not is_inside and not is_cache and path.name != ":memory:":
        _reached.append(f"{path} is changed")
    if not is_name_on_windows(path.name) and path.name != ":memory:" and _is_by_llm_magics():
        _reached.append(f"{path} has a name that Windows does not take")


def _notice_open_file(name: Any) -> None:
    path = os.path.realpath(os.fsdecode(name))
    if _reached is None or not os.path.lexists("/proc/self/fd") or not _is_by_llm_magics():
        return
    opened = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            opened.add(str(descriptor.readlink()))
        except OSError:  # closed meanwhile
            continue
    is_mapped = any(line.endswith(path) for line in _maps())
    if path in opened or is_mapped:
        _reached.append(f"{path} is replaced or removed while it is open")


def _maps() -> list[str]:
    return Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()


def _is_by_llm_magics() -> bool:
    """Whether the nearest frame outside the standard library is of the package."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        file = frame.f_code.co_filename
        is_library = file.startswith((_STANDARD_LIBRARY, "<")) and "site-packages" not in file
        if name != __name__ and not is_library:
            return name.partition(".")[0] == "llm_magics"
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _notice_host(host: str | bytes | None) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if _reached is None or not name or name == "localhost" or name.endswith(".localhost"):
        return
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        name.encode("idna")  # as the function itself would
        if not name.endswith(_NOWHERE):
            _reached.append(name)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
    if not (address.is_loopback or address.is_unspecified):
        _reached.append(name)
        raise OSError(101, "Network is unreachable")
