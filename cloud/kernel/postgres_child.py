"""Become a program of PostgreSQL that dies with its parent. A script, run between fork and exec.

`python -I -S postgres_child.py PARENT SIGNAL UID GID PROGRAM ARGUMENT…`

A fork with Python code in the child is unsafe once the parent has threads; this small process
of its own is not. It drops root for UID and GID (-1: stays who it is), asks the kernel for
SIGNAL when the thread that started it dies, gives up ever gaining privileges, and executes
PROGRAM under the same process id. Standard library only: it may run without our packages.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_NO_NEW_PRIVS = 38


def main(arguments: list[str]) -> None:
    parent, signal_number, uid, gid = (int(argument) for argument in arguments[:4])
    command = arguments[4:]
    os.umask(0o077)
    os.chdir("/")
    if uid >= 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    libc = ctypes.CDLL(None, use_errno=True)
    for option, argument in ((PR_SET_PDEATHSIG, signal_number), (PR_SET_NO_NEW_PRIVS, 1)):
        # after the change of user: that clears the death signal (prctl(2))
        if libc.prctl(option, argument, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    if os.getppid() != parent:
        raise SystemExit("the parent died before its child was ready")
    os.execv(command[0], command)  # noqa: S606  no shell is what we want


if __name__ == "__main__":
    main(sys.argv[1:])
