"""What the system said, whatever it is wrapped in."""

from __future__ import annotations

import errno

import pytest

from kdbridge.transports.stream import reason


def _caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ECONNRESET, "some words"), "Connection reset by peer"),
        (
            _caused(OSError("all attempts failed"), ConnectionRefusedError(errno.ECONNREFUSED, "x")),
            "Connection refused",
        ),
        (_caused(OSError("all"), ExceptionGroup("", [OSError(errno.ENETUNREACH, "")])), "Network is unreachable"),
        (OSError("AF_UNIX path too long"), "AF_UNIX path too long"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_systems_own_words_are_found(error: Exception, said: str) -> None:
    assert reason(error) == said
