"""One writer at a time: a lock on an open file, which the system gives back when its owner ends, however it ends."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["lock"]

_FAR = 1 << 40
"""Windows keeps others from what is locked: a place where no file has anything."""


def lock(fd: int) -> bool:
    """Take the lock, until this file is closed; False: somebody else has it. Those who only read need none."""
    try:
        if sys.platform == "win32":
            os.lseek(fd, _FAR, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks (some network file systems) is no reason not to write. Windows says EACCES.
        return sys.platform != "win32"
    return True
