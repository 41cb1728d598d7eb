"""Import one of our modules when another package is imported, now or later."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def when_imported(package: str, ours: str) -> None:
    """Import the module ``ours`` when ``package`` is imported, or now if it already is."""
    if package in sys.modules:
        import_module(ours)
    elif not any(_watches(finder, package, ours) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher(package, ours))


def _watches(finder: object, package: str, ours: str) -> bool:
    return isinstance(finder, _Watcher) and (finder.package, finder.ours) == (package, ours)


class _Watcher(MetaPathFinder):
    """Finds no module itself; it wraps the loader that others find for ``package``."""

    def __init__(self, package: str, ours: str) -> None:
        self.package = package
        self.ours = ours
        self._is_asking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.package or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = find_spec(fullname)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            # Finding a spec does not import, so the watcher stays until the package is imported.
            spec.loader = _ThenOurs(spec.loader, self)
        return spec

    def has_been_imported(self) -> None:
        """Import our module after the package, and remove this watcher."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        try:
            import_module(self.ours)
        except (
            Exception
        ) as error:  # an error in our module must not break the import of the other package
            from llm_magics.host import warn

            warn(f"{self.ours} could not be imported: {error}")


class _ThenOurs(Loader):
    def __init__(self, loader: Loader, watcher: _Watcher) -> None:
        self._loader = loader
        self._watcher = watcher

    def __getattr__(self, name: str) -> object:  # get_source, resources and others
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._watcher.has_been_imported()
