"""The verbs on a 32-bit machine's dump: told, shown and checked as of any other; not written anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hand_dumps import complete, header32
from tests.kdbridge.cli.calling import call
from tests.x86_machine import NT, x86_machine


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    machine = x86_machine(pae=False)
    path = tmp_path_factory.mktemp("narrow") / "narrow.dmp"
    path.write_bytes(complete(header32(machine, 1), machine.memory))
    return path


def test_info_says_who_it_is(dump: Path) -> None:
    told = call("info", dump)
    assert told.code == 0
    assert told.out.startswith("Windows 6.1 build 7601 free x86, 2 processors")
    assert "bug check 0xd1" in told.out and "parameter 4: 00000000`80530123" in told.out
    assert json.loads(call("info", dump, "--json").out)["version"]["machine_type"] == "0x14c"


def test_registers_have_32_bits(dump: Path) -> None:
    told = call("registers", dump, "--all")
    assert told.code == 0
    assert "eax=0000000a ebx=55667788 ecx=ddeeff00 edx=99aabbcc esi=11223344 edi=000000d1\n" in told.out
    assert "eip=80501030 esp=80518c80 ebp=80518e00\n" in told.out


@pytest.mark.parametrize("address", [f"{NT:x}", f"ffffffff`{NT:x}"])
def test_memory_is_read_by_an_address_of_either_form(dump: Path, address: str) -> None:
    told = call("memory", dump, address, "2")
    assert (told.code, told.out.split()[1:3]) == (0, ["4d", "5a"])


def test_it_is_good_and_cannot_be_converted(dump: Path, tmp_path: Path) -> None:
    assert call("verify", dump).code == 0
    for kind in ("complete", "kernel", "small"):
        told = call("convert", dump, tmp_path / "out.dmp", "--kind", kind)
        assert told.code == 5
        assert "dumps of 32-bit machines are read, and not written" in told.err
    assert not (tmp_path / "out.dmp").exists()
