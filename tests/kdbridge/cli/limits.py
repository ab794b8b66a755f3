"""Limits of this process, for a while."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_file_longer_than", "no_longer"]


def no_longer(size: int) -> None:
    """From now on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """As on a full disk: what goes beyond cannot be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    no_longer(size)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
