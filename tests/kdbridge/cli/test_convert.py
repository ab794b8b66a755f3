"""kdbridge convert: a dump out of what was brought home equals the one that the machine itself would have given."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from kdbridge.memory import files
from kdbridge.memory.files import DumpFile
from protocol.dumpfile.header import DumpType
from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home
from tests.kdbridge.cli.limits import no_file_longer_than


def test_a_kernel_dump_out_of_more_is_the_one_that_the_machine_gives(home: Home, tmp_path: Path) -> None:
    for name, source in (("a.dmp", home.complete), ("b.dmp", home.snapshot), ("c.dmp", home.small)):
        out = tmp_path / name
        ended = call("convert", source, out, "--kind", "kernel", "--json")
        assert ended.code == 0, ended.err
        with DumpFile(out) as made, DumpFile(home.small) as direct:
            assert made.layout.kind is DumpType.BITMAP_KERNEL
            assert made.held == direct.held
            assert all(made.page(pfn) == direct.page(pfn) for pfn in direct.held.pages())
            assert ended.document == {
                "path": str(out), "dump_type": 6, "size": out.stat().st_size,
                "pages": direct.held.page_count, "pieces": 0, "unreadable": 0, "missing": 0,
            }  # fmt: skip
    assert (tmp_path / "b.dmp").read_bytes() == home.small.read_bytes(), "out of the Snapshot, to the last byte"


@pytest.mark.parametrize(
    ("layout", "dump_type"), [("auto", DumpType.FULL), ("runs", DumpType.FULL), ("bitmap", DumpType.BITMAP_FULL)]
)
def test_a_complete_dump_is_written_in_the_layout_asked_for(
    home: Home, tmp_path: Path, layout: str, dump_type: DumpType
) -> None:
    for name, source in (("a.dmp", home.complete), ("b.dmp", home.snapshot)):
        out = tmp_path / name
        ended = call("convert", source, out, "--layout", layout)
        assert (ended.code, ended.out) == (0, "")
        pages = home.kernel.image.runs.page_count
        assert f"{out}: dump type {dump_type.value} ({dump_type.name}), 15.6 MiB, {pages} pages\n" in ended.err
        with DumpFile(out) as made, DumpFile(home.complete) as direct:
            assert made.layout.kind is dump_type
            assert made.held == direct.held
            assert all(made.page(pfn) == direct.page(pfn) for pfn in direct.held.pages())
        assert call("verify", out).code == 0


@pytest.mark.parametrize("kind", ["kernel", "small"])
def test_a_smaller_dump_out_of_a_huge_one_reads_what_it_needs(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The header tells of 1 TiB more, a hole in the file: it is written in seconds, and is the one without it."""
    huge, out, expected = tmp_path / "huge.dmp", tmp_path / "out.dmp", tmp_path / "expected.dmp"
    assert call("convert", home.complete, expected, "--kind", kind).code == 0
    shutil.copy(home.complete, huge)
    with huge.open("r+b") as file:
        # NumberOfRuns at 88, each run from 98 on (dump-formats 2.1).
        file.seek(0x88)
        (count,) = struct.unpack("<I", file.read(4))
        file.seek(0x88)
        file.write(struct.pack("<I", count + 1))
        file.seek(0x98 + 16 * count)
        file.write(struct.pack("<QQ", 1 << 20, 1 << 28))
        file.truncate(huge.stat().st_size + (1 << 40))
    done = 0

    def counted(fd: int, size: int, offset: int) -> bytes:
        nonlocal done
        done += size
        assert done < 256 << 20, "it reads the whole file"
        return os.pread(fd, size, offset)

    monkeypatch.setattr(files, "read_at", counted)
    monkeypatch.setattr(files, "_SEEK_DATA", None)
    ended = call("convert", huge, out, "--kind", kind)
    assert ended.code == 0, ended.err
    with DumpFile(out) as made, DumpFile(expected) as true:
        assert made.held == true.held
        assert all(made.page(pfn) == true.page(pfn) for pfn in true.held.pages())
        assert made.log == (true.log and true.log | {"source": "huge.dmp"})
        if kind == "small":
            assert made.small is not None and true.small is not None
            assert list(made.small.memory.ranges()) == list(true.small.memory.ranges())
            assert made.log["pages_read"] > 50 and made.log["pages_unreadable"] == 0


def test_a_comment_is_written(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    assert call("convert", home.small, out, "--kind", "kernel", "--comment", "second copy").code == 0
    with DumpFile(out) as dump:
        assert dump.layout.header.comment == "second copy"


def test_pages_that_are_missing_are_written_around_only_if_that_is_known(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    with DumpFile(home.small) as small:
        held = small.held
    whole = home.kernel.image.runs.page_count
    ended = call("convert", home.small, out)
    assert (ended.code, out.exists()) == (5, False)
    assert ended.last == (
        f"kdbridge: {home.small} lacks {whole - held.page_count} of the {whole} pages of a complete dump; "
        "--partial writes what there is, a smaller --kind needs fewer"
    )
    ended = call("convert", home.small, out, "--partial", "--json")
    assert (ended.code, ended.document["missing"]) == (1, whole - held.page_count)
    assert ended.last.endswith(f"{held.page_count} pages, {whole - held.page_count} missing")
    with DumpFile(out) as dump:
        assert dump.layout.kind is DumpType.BITMAP_FULL
        assert dump.held == held
        for pfn in held.pages():
            if dump.page(pfn) != home.kernel.image.read_page(pfn):
                with DumpFile(home.small) as small:
                    assert dump.page(pfn) == small.page(pfn)


def test_pages_that_the_machine_refused_are_told_of(tmp_path: Path) -> None:
    folder, out = tmp_path / "snapshot", tmp_path / "again.dmp"
    assert call("dump", sim(unreadable=3), tmp_path / "out.dmp", "--keep-snapshot", folder).code == 1
    ended = call("convert", folder, out, "--json")
    assert (ended.code, ended.document["unreadable"]) == (1, 3)
    assert ended.last == "3 pages could not be read from the target"
    assert out.read_bytes() == (tmp_path / "out.dmp").read_bytes()


def test_nothing_is_overwritten_unless_told_to_and_never_the_source(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    out.write_text("mine")
    ended = call("convert", home.small, out, "--kind", "kernel")
    assert (ended.code, out.read_text()) == (5, "mine")
    assert ended.last == f"kdbridge: {out} exists already; --force overwrites it"
    assert call("convert", home.small, out, "--kind", "kernel", "--force").code == 0
    before = out.read_bytes()
    for name in (out, tmp_path / "." / "out.dmp"):
        ended = call("convert", out, name, "--kind", "kernel", "--force")
        assert (ended.code, ended.last) == (5, f"kdbridge: {name} is the source itself")
    assert out.read_bytes() == before


def test_what_cannot_be_converted_or_written_is_told_in_one_sentence(home: Home, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello")
    none = tmp_path / "none" / "x.dmp"
    kernel_runs = (home.small, tmp_path / "x", "--kind", "kernel", "--layout", "runs")
    for words, code, complaint in (
        ((tmp_path / "no", tmp_path / "x"), 5, f"{tmp_path}/no cannot be read: No such file or directory"),
        ((home.small, tmp_path, "--force"), 5, f"{tmp_path} is a folder; name the file that is to be written"),
        ((home.small, none), 5, f"{none} cannot be written: there is no folder {none.parent}"),
        (kernel_runs, 2, "--layout runs is for complete dumps: a kernel dump is always a bitmap (type 6)"),
        (
            (tmp_path, tmp_path / "x"), 5,
            f"{tmp_path} is a folder, but no Snapshot: target.json or coverage is missing in it",
        ),
        (
            (sim(), tmp_path / "x"), 2,
            f"{sim()} is a target: convert works on what was brought home; `kdbridge dump` brings it",
        ),
    ):  # fmt: skip
        ended = call("convert", *words)
        assert (ended.code, ended.out, ended.err, ended.machines) == (code, "", f"kdbridge: {complaint}\n", ())
    ended = call("convert", text, tmp_path / "x")
    assert ended.code == 5 and ended.err.startswith(f"kdbridge: {text} is not a dump that can be read: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text"]


def test_a_full_disk_leaves_no_piece_of_a_dump(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "out.dmp"
    with no_file_longer_than(6 << 20):
        ended = call("convert", home.snapshot, out)
    assert ended.code == 5
    assert ended.last == (
        f"kdbridge: {out} cannot be written: File too large; {home.complete.stat().st_size} bytes are needed. "
        "What was read is kept."
    )
    assert list(tmp_path.iterdir()) == []
