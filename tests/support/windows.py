"""Make this process look like one on Windows, as far as that can be done elsewhere."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from types import ModuleType
from typing import Any

_MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
_NAMES: dict[Any, str] = {
    os: """
        O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK WNOHANG chown fchmod fchown fdatasync fork
        forkpty getegid geteuid getgid getloadavg getpgid getpgrp getpriority getresuid getsid
        getuid initgroups killpg lchown lockf mkfifo nice openpty pathconf posix_fadvise
        posix_fallocate posix_spawn pread preadv pwrite pwritev register_at_fork
        sched_getaffinity sched_yield sendfile setpgid setsid setuid statvfs sync uname wait
        wait3 wait4 waitid
    """,
    select: "epoll poll",
    signal: """
        SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2
        alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending
        sigwait
    """,
    time: "clock_getres clock_gettime clock_settime tzset",
}


def pretend() -> None:
    """Take away what only POSIX has; what is imported already keeps its own references."""
    sys.modules["msvcrt"] = _msvcrt()
    for name in _MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for owner, names in _NAMES.items():
        for name in names.split():
            if hasattr(owner, name):
                delattr(owner, name)
    if hasattr(os, "process_cpu_count"):  # from Python 3.13; written for POSIX here
        os.process_cpu_count = os.cpu_count
    sys.platform = "win32"


def _msvcrt() -> ModuleType:
    """The locks of Windows' C library, made of POSIX's."""
    module: Any = ModuleType("msvcrt")
    module.LK_NBLCK, module.LK_UNLCK = 2, 0
    kinds = {2: fcntl.LOCK_EX | fcntl.LOCK_NB, 0: fcntl.LOCK_UN}
    module.locking = lambda file, mode, size: fcntl.lockf(file, kinds[mode], size)
    return module  # type: ignore[no-any-return]
