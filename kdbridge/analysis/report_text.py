"""An analysis as a person reads it in a terminal: what matters first, addresses as WinDbg writes them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from kdbridge.target import Module, UnloadedModule
from kdbridge.words import register_lines, size
from protocol.address import format_address
from protocol.arch import architecture_of

from .model import Analysis, CrashContext, Frame, ImageFact, Missing, ParameterFact, ProcessFact, Stack, ThreadFact
from .names import short_name
from .report_words import (
    GUESS_LEGEND,
    GUESSES,
    facts,
    grouped_images,
    grouped_missing,
    headline,
    notes_of,
    on_the_way,
    operand_words,
    parameter_words,
    stack_title,
    suspect_line,
)

__all__ = [
    "first_lines",
    "image_lines",
    "missing_lines",
    "parameter_lines",
    "print_lines",
    "process_lines",
    "rest_lines",
    "stack_lines",
    "unloaded_lines",
]

_WIDTH = 110
_LABEL = 13
_SPANS = 6
"""Addresses that are named of what was missing; --json has all."""
_PRINTS = 40
"""Lines of prints in the report of everything; `print-buffer` shows all."""


def first_lines(analysis: Analysis) -> Iterator[str]:
    """The first screen: bug check, suspect, crash context, stack."""
    yield headline(analysis)
    if (check := analysis.bug_check) is not None:
        yield from _wrapped(check.meaning, "")
        yield ""
        yield from parameter_lines(check.parameters)
    yield ""
    if (suspect := analysis.suspect) is not None:
        yield from _labelled("suspect", suspect_line(suspect))
        yield from _labelled("because", f"{suspect.why} (rule: {suspect.rule})")
    else:
        yield from _labelled("suspect", "none: no rule names a driver")
    if analysis.bucket:
        yield from _labelled("bucket", analysis.bucket)
    if analysis.crash is not None:
        yield ""
        yield from _crash_lines(analysis, analysis.crash)
    if analysis.stack is not None:
        yield ""
        yield from stack_lines(analysis.stack, most_guesses=GUESSES)


def parameter_lines(parameters: Sequence[ParameterFact]) -> Iterator[str]:
    """Parameters of a bug check: value, meaning, and what they point to."""
    for parameter in parameters:
        yield from _value(f"{parameter.number:>7}", *parameter_words(parameter))


def rest_lines(analysis: Analysis) -> Iterator[str]:
    """Everything else: the other stacks, images, processes, system, prints, and what is not known."""
    for stack in analysis.stacks:
        if stack != analysis.stack:
            yield ""
            yield from stack_lines(stack, "as it stands", GUESSES)
    if (thread := analysis.current) is not None:
        yield ""
        yield "current thread"
        # Its stack was on the first screen.
        yield from _thread_lines(thread, "  ", stack=False)
    yield ""
    yield from _grouped_image_lines(analysis)
    if analysis.unloaded:
        yield ""
        yield from unloaded_lines(analysis.unloaded)
    if analysis.processes:
        yield ""
        yield from process_lines(analysis.processes, running=False)
    yield ""
    for label, text in facts(analysis):
        if text:
            yield from _labelled(label, text)
    if (held := analysis.held) is not None:
        parts = [f"{size(held.held.page_count << 12)} of {size(held.memory.page_count << 12)} are held"]
        for runs, words in ((held.unreadable, "could not be read"), (held.inferred, "of it inferred")):
            parts += [f"{size(runs.page_count << 12)} {words}"] if runs.page_count else []
        yield from _labelled("memory", ", ".join(parts))
    yield from _labelled("read", f"{size(analysis.bytes_read)} for this analysis")
    prints = analysis.print_buffer or ""
    for title, printed in (("printed while we were there", analysis.console), ("print buffer", prints)):
        if printed:
            yield ""
            yield title
            yield from (f"  {line}" for line in print_lines(printed, _PRINTS))
    yield from missing_lines(analysis.missing)


# ---- the crash -------------------------------------------------------------------------------------------------------


def _crash_lines(analysis: Analysis, crash: CrashContext) -> Iterator[str]:
    yield from _wrapped(f"registers of processor {crash.processor}: {crash.origin}", "  ")
    for text in crash.passed_over:
        yield from _wrapped(f"passed over: {text}", "  ", "  ")
    if (exception := crash.exception) is not None:
        yield from _wrapped(f"exception at {exception.place}: {exception.words}", "  ")
    architecture = architecture_of(analysis.target.version.machine_type)
    if architecture is not None:
        yield from register_lines(crash.context, None, architecture, crash.known)
        if any(name not in crash.known for row in architecture.display for name in row):
            yield "(question marks: this origin does not hold these registers)"
    yield f"{crash.place}:"
    for at, one in enumerate(crash.instructions):
        yield f"{'>' if not at else ' '} {format_address(one.address)} {one.data.hex():<16} {one.text}"
        for operand in one.operands:
            did, lies = operand_words(operand)
            yield from _wrapped(f"{did} {format_address(operand.address)}, {lies}", " " * 8, " " * 6)
    if not crash.instructions:
        yield "  the instruction there cannot be read"


def stack_lines(stack: Stack, title: str = "", most_guesses: int | None = None) -> Iterator[str]:
    """One stack, as `k` shows it. Guessed frames are marked, and a line below says so; the first so many are shown."""
    yield f"stack{stack_title(stack)}" + (f" ({title})" if title else "")
    if stack.frames:
        yield "     Child-SP          RetAddr           Call Site"
    guesses = 0
    for number, (frame, note) in enumerate(zip(stack.frames, notes_of(stack), strict=True)):
        guesses += frame.trust.guessed
        if most_guesses is None or guesses <= most_guesses or not frame.trust.guessed:
            yield from _frame_lines(number, frame, note)
    if most_guesses is not None and guesses > most_guesses:
        yield f"   … {guesses - most_guesses} more guesses: kdbridge stack shows them"
    if any(frame.trust.guessed for frame in stack.frames):
        yield f"   {GUESS_LEGEND}"
    if not stack.whole:
        yield from _wrapped(f"   not whole: {stack.ended}", "     ")


def _frame_lines(number: int, frame: Frame, note: str) -> Iterator[str]:
    mark = "?" if frame.trust.guessed else " "
    addresses = f"{format_address(frame.stack_pointer)} {format_address(frame.return_address)}"
    line = f"{number:02x} {mark} {addresses} {frame.place}"
    if not note:
        yield _cut(line)
    elif len(line) + len(note) + 4 <= _WIDTH:
        yield f"{line}  ({note})"
    else:
        yield _cut(line)
        yield from _wrapped(f"({note})", " " * 42, " " * 41)


# ---- images ----------------------------------------------------------------------------------------------------------


def _grouped_image_lines(analysis: Analysis) -> Iterator[str]:
    suspect = analysis.suspect.module if analysis.suspect is not None else ""
    way, kernel = on_the_way(analysis), analysis.target.version.kern_base
    for words, group in grouped_images(analysis):
        yield f"modules: {words} ({len(group)})"
        yield from image_lines(group, suspect, way, kernel)
    if suspect or way:
        yield "  ! the suspect   * on the stack"


def image_lines(
    images: Sequence[ImageFact], suspect: str = "", way: frozenset[str] = frozenset(), kernel: int = 0
) -> Iterator[str]:
    """Images, one a line: base, size, time stamp, name, version and what it says of itself."""
    for fact in images:
        name = short_name(fact.module, kernel)
        mark = "!" if suspect and name == suspect else "*" if name in way else " "
        yield _image_line(mark, fact.module, fact)


def _image_line(mark: str, module: Module, fact: ImageFact) -> str:
    head = f"{mark} {format_address(module.base)} {module.size:8x} {module.time_date_stamp:08x}  {module.name:<20}"
    return _cut(f"{head}  {fact.version:<16}  {fact.description or fact.company}".rstrip())


def unloaded_lines(unloaded: Sequence[UnloadedModule]) -> Iterator[str]:
    """Images that were unloaded."""
    yield f"unloaded modules ({len(unloaded)})"
    for gone in unloaded:
        yield _cut(f"  {format_address(gone.start)} {max(gone.end - gone.start, 0):8x}           {gone.name}".rstrip())


# ---- processes and threads -------------------------------------------------------------------------------------------


def process_lines(processes: Sequence[ProcessFact], *, running: bool = True) -> Iterator[str]:
    """Processes, one a line; below each its threads, where they are known, and stacks (of running ones, or not)."""
    yield f"processes ({len(processes)})"
    yield "    process id  parent  EPROCESS           directory table  name"
    for fact in processes:
        mark = "*" if fact.current_on else " "
        parent = "?" if fact.parent_id is None else str(fact.parent_id)
        where = f"{format_address(fact.address)}  {fact.directory_table_base:#15x}"
        on = f"  (on processor {', '.join(map(str, fact.current_on))})" if fact.current_on else ""
        yield _cut(f"  {mark} {fact.process_id:>10}  {parent:>6}  {where}  {fact.name or '?'}{on}")
        for thread in fact.threads:
            yield from _thread_lines(thread, " " * 6, stack=running or thread.processor is None)


def _thread_lines(thread: ThreadFact, indent: str, *, stack: bool = True) -> Iterator[str]:
    number = "?" if thread.thread_id is None else str(thread.thread_id)
    process = f" of process {thread.process_id}" if thread.process_id is not None else ""
    who = "idle thread" if thread.thread_id is None and thread.process_id == 0 else f"thread {number}{process}"
    on = f" on processor {thread.processor}" if thread.processor is not None else ""
    yield f"{indent}{who}  {format_address(thread.address)}  {thread.state}{on}".rstrip()
    if stack and thread.stack is not None:
        yield from (_cut(f"{indent}  {line}") for line in list(stack_lines(thread.stack))[1:])


# ---- prints, and what is not known -----------------------------------------------------------------------------------


def print_lines(text: str, most: int | None = None) -> Iterator[str]:
    """What was printed, line by line; with `most`, the last lines only."""
    lines = text.replace("\r", "").rstrip("\n").split("\n")
    if most is not None and len(lines) > most:
        yield f"({len(lines) - most} lines before these; kdbridge print-buffer shows all that is in the buffer)"
        lines = lines[-most:]
    yield from lines


def missing_lines(missing: Sequence[Missing]) -> Iterator[str]:
    """What could not be determined, and which memory it lacked."""
    if not missing:
        return
    yield ""
    yield "what could not be determined"
    for one in grouped_missing(missing):
        yield from _wrapped(f"{one.what}: {one.why}", "    ", "  ")
        spans = [f"{format_address(address)} ({count:#x} bytes)" for address, count in one.ranges[:_SPANS]]
        more = f", and {len(one.ranges) - _SPANS} more" if len(one.ranges) > _SPANS else ""
        if spans:
            yield from _wrapped(f"lacks {', '.join(spans)}{more}", "      ", "    ")


# ---- lines -----------------------------------------------------------------------------------------------------------


def _value(label: str, words: str, points: str) -> Iterator[str]:
    value, _, meaning = words.partition("  ")
    line = f"{label}  {value:<26}  {meaning}"
    if points and len(line) + len(points) + 2 <= _WIDTH:
        yield f"{line}: {points}"
    else:
        yield from _wrapped(line, " " * 37)
        if points:
            yield from _wrapped(points, " " * 37, " " * 37)


def _labelled(label: str, text: str) -> Iterator[str]:
    yield from _wrapped(text, " " * _LABEL, f"{label:<{_LABEL - 1}} ")


def _wrapped(text: str, later: str, first: str = "") -> Iterator[str]:
    flat = " ".join(text.split()) if not text.startswith(" ") else text
    yield from textwrap.wrap(
        flat, _WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False, drop_whitespace=True
    ) or [first.rstrip()]


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
