"""Words and orders that every report of an analysis shares: headline, facts of the system, whose an image is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdbridge.words import break_status_words, duration, file_time, size
from protocol.address import format_address

from .model import Analysis, Frame, ImageFact, MemoryOperand, Missing, ParameterFact, Stack, Suspect
from .names import short_name

__all__ = [
    "GUESSES",
    "GUESS_LEGEND",
    "facts",
    "grouped_images",
    "grouped_missing",
    "headline",
    "notes_of",
    "on_the_way",
    "operand_words",
    "parameter_words",
    "stack_title",
    "state_of",
    "suspect_line",
]

GUESSES = 12
"""Guessed frames of one stack that a report of everything shows at once."""
GUESS_LEGEND = "? a guess: nothing proves that this frame is one"
_OWNERS = ((False, "third-party"), (None, "no version says whose"), (True, "Microsoft's"))


def headline(analysis: Analysis) -> str:
    """What happened, in the fewest words."""
    if analysis.bug_check is not None:
        return f"{analysis.bug_check.name} ({analysis.bug_check.code:x})"
    target = analysis.target
    known = "no bug check" if target.bug_check_code is not None else "whether there was a bug check is not known"
    if target.break_status is not None:
        return f"{known}: stopped by {break_status_words(target.break_status)}"
    if analysis.crash is not None and analysis.crash.exception is not None:
        return f"{known}: {analysis.crash.exception.words}"
    return known


def parameter_words(parameter: ParameterFact) -> tuple[str, str]:
    """A parameter of a bug check: its value and meaning, and what it points to (empty where to nothing known)."""
    inside = str(parameter.place) if parameter.place is not None and parameter.place.module else ""
    return parameter.words, "; ".join(text for text in (inside, parameter.region) if text)


def suspect_line(suspect: Suspect) -> str:
    """Whom to look at first, and how sure that is."""
    return f"{suspect.module} ({suspect.certainty.value})"


def operand_words(operand: MemoryOperand) -> tuple[str, str]:
    """Memory that an instruction touches: what it does there, and what lies there."""
    verb = {"read": "reads", "write": "writes", "read and write": "reads and writes"}.get(operand.access, "touches")
    did = f"{verb} {operand.size} byte{'s' if operand.size != 1 else ''} at {operand.expression} ="
    inside = f" ({operand.place})" if operand.place is not None and operand.place.module else ""
    if operand.content is None:
        return did, f"which cannot be read{inside}"
    value = operand.content[::-1].hex() if len(operand.content) <= 8 else operand.content.hex(" ")
    return did, f"{value} lies there{inside}"


def stack_title(stack: Stack) -> str:
    """Whose stack it is: of a processor, of a thread, or of both."""
    of = [f"processor {stack.processor}"] if stack.processor is not None else []
    of += [f"thread {format_address(stack.thread)}"] if stack.thread is not None else []
    return " of " + ", ".join(of) if of else ""


def state_of(frame: Frame) -> str:
    """How a frame was found, in one or two words; empty where it is unwound as most are."""
    return frame.trust.name.lower().replace("_", " ") if frame.trust.name not in ("UNWOUND", "REGISTERS") else ""


def notes_of(stack: Stack) -> tuple[str, ...]:
    """What there is to say of each frame, but what was said of one above it already."""
    said: set[str] = {""}
    notes: list[str] = []
    for frame in stack.frames:
        # That it lies below a guess, its mark says.
        text = frame.note.removeprefix("below a guess").removeprefix(": ") if frame.trust.guessed else frame.note
        parts = [part for part in text.split("; ") if part not in said]
        said.update(parts)
        notes.append("; ".join(parts))
    return tuple(notes)


def grouped_missing(missing: Sequence[Missing]) -> Iterator[Missing]:
    """What is missing, with what lacks for the same reason and differs by a number only put together."""
    groups: dict[tuple[str, str], list[Missing]] = {}
    for one in missing:
        head, _, number = one.what.rpartition(" ")
        groups.setdefault((head if number.isdigit() else one.what, one.why), []).append(one)
    for (head, why), group in groups.items():
        numbers = ", ".join(one.what.rpartition(" ")[2] for one in group)
        what = group[0].what if len(group) == 1 else f"{head} {numbers}"
        yield Missing(what, why, tuple(dict.fromkeys(span for one in group for span in one.ranges)))


def on_the_way(analysis: Analysis) -> frozenset[str]:
    """Short names of the images in which a frame of the stack lies."""
    frames = analysis.stack.frames if analysis.stack is not None else ()
    return frozenset(frame.place.module for frame in frames if frame.place.module)


def grouped_images(analysis: Analysis) -> Iterator[tuple[str, tuple[ImageFact, ...]]]:
    """Images by whose they are, third-party ones first; in each group suspects first, then those on the stack."""
    suspect = analysis.suspect.module if analysis.suspect is not None else ""
    way, kernel = on_the_way(analysis), analysis.target.version.kern_base

    def rank(fact: ImageFact) -> int:
        name = short_name(fact.module, kernel)
        return 0 if name == suspect else 1 if name in way else 2

    for microsoft, words in _OWNERS:
        group = sorted((one for one in analysis.images if one.microsoft is microsoft), key=rank)
        if group:
            yield words, tuple(group)


def facts(analysis: Analysis) -> Iterator[tuple[str, str]]:
    """What ran, on what, since when: (what, value), those that are known."""
    system, times = analysis.system, analysis.times
    yield "system", ", ".join(text for text in (system.windows, system.product, system.system_root) if text)
    yield "built as", system.build_lab
    count = f"{system.processors} processor{'s' if system.processors != 1 else ''}"
    speed = f"{system.megahertz} MHz" if system.megahertz else ""
    ram = f"{size(system.memory)} of memory" if system.memory is not None else ""
    yield "machine", ", ".join(text for text in (count, system.vendor, speed, ram) if text)
    yield from system.firmware
    yield "stopped", file_time(times.crash) if times.crash is not None else ""
    yield "started", file_time(times.boot) if times.boot is not None else ""
    yield "was up", duration(times.up / 1e7) if times.up is not None else ""
