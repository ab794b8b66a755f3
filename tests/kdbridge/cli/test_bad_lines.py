"""kdbridge dump over lines that are sick in one way: what comes home is the memory, or an error says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbridge.memory.files import DumpFile
from tests.kdbridge.cli.calling import call, sim

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", ["echo", "latency=16", "stall=0.01", "dup=0.05", "loss=0.05", "restart=1e6"])
def test_the_dump_is_the_memory(tmp_path: Path, fault: str) -> None:
    out = tmp_path / "out.dmp"
    ended = call("dump", sim(baud=921600, fault=fault), out, "--kind", "kernel")
    assert ended.code == 0, ended.err
    image = ended.machine.pristine
    with DumpFile(out) as dump:
        assert dump.held.page_count > 500
        wrong = [pfn for pfn in dump.held.pages() if dump.page(pfn) != image.read_page(pfn)]
    assert len(wrong) <= len(ended.machine.kernel.processors)
    assert list(ended.machine.target.machine.touched) == []


def test_a_target_that_is_reset_in_the_middle_is_told_and_nothing_is_mixed(tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    ended = call("dump", sim(baud=921600, fault="restart=20"), out)
    assert (ended.code, out.exists()) == (4, False)
    assert "are kept in" in ended.err
