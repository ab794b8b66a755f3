"""A file that is written as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbridge.discovery import discover
from kdbridge.dump import DumpLayoutChoice, render
from kdbridge.dump.whole import whole_file
from kdbridge.errors import DumpError
from kdbridge.memory.files import DumpFile
from tests.dumps import rendered
from tests.simulator.dumped import dump_plan
from tests.simulator.small_dumped import small_machine


def _names(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir()]


def test_it_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    path = tmp_path / "whole"
    with whole_file(path, 5) as file:
        file.write(b"12345")
        assert not path.exists()
    assert path.read_bytes() == b"12345"


@pytest.mark.parametrize("data", [b"", b"1234", b"123456"])
def test_of_another_size_it_is_not_put_there(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    path.write_bytes(b"before")
    with (
        pytest.raises(DumpError, match=f"whole was not written: {len(data)} bytes came where 5 belong"),
        whole_file(path, 5) as file,
    ):
        file.write(data)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("whole", b"before")]


@pytest.mark.parametrize("layout", [DumpLayoutChoice.RUNS, DumpLayoutChoice.BITMAP])
async def test_of_a_file_that_becomes_shorter_while_it_is_read_no_dump_is_made(
    layout: DumpLayoutChoice, tmp_path: Path
) -> None:
    source, out = tmp_path / "source.dmp", tmp_path / "out.dmp"
    source.write_bytes(rendered(*dump_plan(small_machine(), 1)))
    with DumpFile(source) as dump:
        target = await discover(dump)
        held = dump.held
        with source.open("r+b") as file:
            file.truncate(source.stat().st_size - 3 * 0x1000 - 100)
        last = list(held.pages())[-4]
        with pytest.raises(DumpError, match=rf"source\.dmp became shorter .*: frame {last:#x} is not there any more"):
            await render(dump, target, out, layout=layout)
    assert _names(tmp_path) == ["source.dmp"]
