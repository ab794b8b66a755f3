"""Named pipes, as far as they can be tried where there are none."""

from __future__ import annotations

import sys

import pytest

from kdbridge.errors import TransportOpenError, UsageError
from kdbridge.transports import open_transport


@pytest.mark.skipif(sys.platform == "win32", reason="there are named pipes here")
async def test_where_there_are_no_named_pipes_the_user_is_told_what_there_is() -> None:
    with pytest.raises(UsageError, match="unix:/path/to/socket or tcp:HOST:PORT"):
        await open_transport(r"com:pipe,port=\\.\pipe\vm,resets=0,reconnect")


@pytest.mark.skipif(sys.platform != "win32", reason="there are no named pipes here")
async def test_a_pipe_that_is_not_there_is_an_error_that_says_so() -> None:
    with pytest.raises(TransportOpenError, match="there is no such pipe"):
        await open_transport(r"pipe:\\.\pipe\kdbridge-no-such-pipe")
