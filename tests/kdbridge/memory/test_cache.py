"""The bound of the cache, and what makes room."""

from __future__ import annotations

import pytest

from kdbridge.memory.cache import BoundedCache


def test_the_entry_that_was_not_used_for_longest_makes_room() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert ("a" in cache, "b" in cache, "c" in cache, len(cache)) == (True, False, True, 2)


def test_what_is_not_there_is_an_error_of_the_caller() -> None:
    cache: BoundedCache[int, int] = BoundedCache(1)
    with pytest.raises(KeyError):
        cache.get(1)
