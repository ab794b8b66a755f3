"""kdbridge triage-name: one word, the same wherever it is read from and wherever images were loaded."""

from __future__ import annotations

from pathlib import Path

from kdbridge.memory.files import DumpFile
from protocol.address import PAGE_SIZE
from protocol.dumpfile.complete import UNREADABLE_PAGE
from tests.kdbridge.cli.calling import call, sim
from tests.kdbridge.cli.conftest import Home


def test_one_word_the_same_everywhere(home: Home) -> None:
    answers = [call("triage-name", source) for source in (sim(), home.complete, home.small, home.snapshot)]
    words = {answer.out for answer in answers}
    assert len(words) == 1 and {answer.code for answer in answers} == {0}
    (word,) = words
    assert word.startswith("D1_mydrv+") and word.endswith("\n") and " " not in word
    assert call("triage-name", home.complete, "--json").document["bucket"] == word.strip()
    assert call("analyze", home.complete, "--json").document["bucket"] == word.strip()


def test_a_name_that_may_be_another_of_the_whole_machine_is_told(tmp_path: Path) -> None:
    """The driver that called KeBugCheckEx stands on the stack: without that, all such crashes would look alike."""
    path = tmp_path / "ef.dmp"
    kernel = call("dump", sim("bugcheck-ef"), path).machine.kernel
    whole = call("triage-name", path)
    assert whole.out.startswith("EF_mydrv+") and (whole.code, whole.err) == (0, "")
    stopped = kernel.processors[0]
    with DumpFile(path) as dump, path.open("r+b") as file:
        for page in range(stopped.stack_limit, stopped.stack_base, PAGE_SIZE):
            frame = kernel.tables.translate(page)
            offset = None if frame is None else dump.layout.pages.offset_of(frame // PAGE_SIZE)
            if offset is not None:
                file.seek(offset)
                file.write(UNREADABLE_PAGE)
    ended = call("triage-name", path, "--json")
    assert ended.code == 1
    assert ended.document["bucket"] == f"EF_nt+{stopped.frames[0].instruction - kernel.kernel_base:x}"
    assert "no driver was found, and the stack that would show it is not whole" in ended.last
    assert "stack" in {word for one in ended.document["missing"] for word in one["what"].split()}
