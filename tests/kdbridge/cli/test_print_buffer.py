"""kdbridge print-buffer: what the machine's kernel printed."""

from __future__ import annotations

from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home


def test_target_dump_and_snapshot_give_one_answer(home: Home) -> None:
    answers = [call("print-buffer", source, "--json") for source in (sim(), home.complete, home.snapshot)]
    assert len({answer.document["print_buffer"] for answer in answers}) == 1
    assert len({answer.code for answer in answers}) == 1


def test_what_cannot_be_read_is_named_and_the_exit_code_is_1(home: Home) -> None:
    half = home.folder / "half prints.dmp"
    half.write_bytes(home.small.read_bytes()[:1_000_000])
    ended = call("print-buffer", half)
    assert ended.code == 1 and ended.out.lstrip("\n").startswith("what could not be determined\n")
    assert call("print-buffer", half, "--json").document["print_buffer"] is None
