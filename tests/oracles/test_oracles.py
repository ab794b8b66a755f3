"""The outside readers say no where they must: an oracle that takes anything proves nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.address import PageRun, PageRuns
from protocol.dumpfile import DumpType, encode_header, plan_complete
from tests.dumps import HEADER, made_up_memory, rendered
from tests.oracles import kdmp, leechcore, volatility
from tests.oracles.oracle import OracleError

_BIG = 17 << 20


def _file(path: Path, data: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(data)
        file.truncate(size)
    return path


@pytest.mark.parametrize("oracle", [kdmp, volatility, leechcore], ids=lambda oracle: oracle.__name__.rpartition(".")[2])
def test_what_is_no_dump_is_refused(oracle: Any, tmp_path: Path) -> None:
    with pytest.raises(OracleError), oracle.open_oracle(_file(tmp_path / "noise.dmp", b"MZ", _BIG)):
        pass


@pytest.mark.parametrize("number", [2, 4, 8, 9, 0xA])
def test_leechcore_gets_nothing_that_it_would_take_for_raw_memory(number: int, tmp_path: Path) -> None:
    head = encode_header(replace(HEADER, dump_type=DumpType(number)))
    with (
        pytest.raises(OracleError, match=f"does not know type {number:X}"),
        leechcore.open_oracle(_file(tmp_path / "odd.dmp", head, _BIG)),
    ):
        pass


def test_leechcore_that_gives_up_is_heard(tmp_path: Path) -> None:
    # Type 1 without a single run: LeechCore itself says no, in its own process.
    head = encode_header(HEADER)
    with (
        pytest.raises(OracleError, match=r"went away \(status 1\)"),
        leechcore.open_oracle(_file(tmp_path / "empty.dmp", head, _BIG)),
    ):
        pass


def test_leechcore_that_dies_is_heard(tmp_path: Path) -> None:
    runs = PageRuns([PageRun(1, 2)])
    data = rendered(plan_complete(HEADER, runs), made_up_memory(runs))
    with leechcore.open_oracle(_file(tmp_path / "fine.dmp", data, _BIG)) as oracle:
        assert oracle.read_page(1) == data[0x2000:0x3000]
        oracle.process.kill()
        oracle.process.wait()
        with pytest.raises(OracleError, match="went away"):
            oracle.read_page(2)


def test_small_files_are_too_small_for_leechcore(tmp_path: Path) -> None:
    head = encode_header(replace(HEADER, dump_type=DumpType.FULL))
    with (
        pytest.raises(OracleError, match="less than 16 MiB"),
        leechcore.open_oracle(_file(tmp_path / "small.dmp", head, 0x3000)),
    ):
        pass
