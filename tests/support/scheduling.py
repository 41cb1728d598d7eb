"""Which tests a worker of pytest-xdist gets at a time."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

# Many of these start a kernel or a browser each, which takes seconds.
_ONE_BY_ONE = ("tests/docs/", "tests/notebook/", "notebooks/")


class ModuleScheduling(LoadScopeScheduling):
    """
    Gives a worker the tests of a module together, so that what they share is started once.

    Clusters, models and large libraries would otherwise be started by each worker.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(_ONE_BY_ONE) else nodeid.partition("::")[0]
