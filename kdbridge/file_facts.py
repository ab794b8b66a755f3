"""What a dump file tells of a machine beside its memory: its header repeats much, and a small dump has lists."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.address import PageRuns
from protocol.structure import Structure

from .source import Source
from .target import Module, SharedData, UnloadedModule

__all__ = ["FileFacts", "told_by_file"]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Used where memory does not tell the same."""

    bug_check: tuple[int, int, int, int, int]
    """Code and parameters; all 0 where there was none."""
    shared_data: SharedData | None
    """What the header repeats of KUSER_SHARED_DATA; Windows' version and folder are not in it."""
    context: Structure | None
    """The CONTEXT in the header: of the processor that crashed, at the crash."""
    directory_table_base: int
    """0 where the header has none."""
    runs: PageRuns | None
    """Runs of physical memory; None where there are none that can be."""
    modules: tuple[Module, ...] | None
    unloaded_modules: tuple[UnloadedModule, ...] | None
    """Lists of images of the file's own; None where they are in memory."""
    shortcomings: tuple[str, ...] = ()
    """What is wrong with the file itself: cut off, damaged."""


def told_by_file(source: Source) -> FileFacts | None:
    """What the file behind this source tells; None of what is no dump file."""
    facts: FileFacts | None = getattr(source, "file_facts", None)
    return facts
