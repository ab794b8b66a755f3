"""An analysis as one page that needs nothing else: no script, no picture, no font from elsewhere, no request at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kdbridge.words import hex_lines, register_lines, size
from protocol.address import format_address
from protocol.arch import architecture_of

from .coverage_map import coverage_svg
from .html_parts import Cell, definitions, mono, preformatted, safe, section, table
from .html_style import STYLE
from .model import Analysis, CrashContext, Frame, Held, ImageFact, Missing, ProcessFact, Stack, ThreadFact
from .names import short_name
from .report_text import print_lines
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
    state_of,
)

__all__ = ["html_page"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Even if something slipped through, a browser would neither run nor fetch it."""
_MOST_PIECES, _MOST_BYTES = 32, 1024
_MOST_PRINTS = 2000


def html_page(analysis: Analysis) -> str:
    """The whole page."""
    title = headline(analysis)
    body = "".join(_sections(analysis))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{safe(title)}: {safe(analysis.source)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{body}<footer>Made by kdbridge analyze. {safe(size(analysis.bytes_read))} were read for it. "
        "Nothing in this page comes from elsewhere.</footer></main></body></html>\n"
    )


def _sections(analysis: Analysis) -> Iterator[str]:
    yield f'<p class="source">{safe(analysis.source)}</p>'
    yield _verdict(analysis)
    if analysis.crash is not None:
        yield section("Where it happened", _crash(analysis, analysis.crash), opened=True)
    if analysis.stack is not None:
        yield section(f"Stack{stack_title(analysis.stack)}", _stack(analysis.stack), opened=True)
    yield section("What could not be determined", _missing(analysis), opened=True)
    others = [one for one in analysis.stacks if one != analysis.stack]
    yield section(
        f"Stacks of processors as they stand ({len(others)})",
        "".join(f"<h3>Stack{safe(stack_title(one))}</h3>{_stack(one)}" for one in others),
    )
    yield section(f"Modules ({len(analysis.images)})", _images(analysis), opened=True)
    yield section(
        f"Unloaded modules ({len(analysis.unloaded)})",
        table(
            ("from", "to", "name"),
            (("", (mono(format_address(one.start)), mono(format_address(one.end)), ("name", safe(one.name))))
             for one in analysis.unloaded),
        ) if analysis.unloaded else "",
    )  # fmt: skip
    current = _threads([analysis.current]) if analysis.current is not None else ""
    yield section("The thread that stopped the machine", current)
    yield section(f"Processes ({len(analysis.processes)})", _processes(analysis.processes))
    yield section("System", definitions((what, safe(text)) for what, text in facts(analysis)), opened=True)
    if analysis.held is not None:
        yield section("Physical memory", _held(analysis.held), opened=True)
    yield section(f"Memory that matters ({len(analysis.pieces)})", _pieces(analysis.pieces))
    yield section("Printed while we were there", _prints(analysis.console))
    yield section("The kernel's print buffer", _prints(analysis.print_buffer or ""))


# ---- the first screen ------------------------------------------------------------------------------------------------


def _verdict(analysis: Analysis) -> str:
    check, suspect = analysis.bug_check, analysis.suspect
    parts = ["<h1>" + safe(headline(analysis)).replace("_", "_<wbr>") + "</h1>"]
    if check is not None:
        parts.append(f"<p>{safe(check.meaning)}</p>")
    who = ""
    if suspect is not None:
        sure = suspect.certainty.value
        look = {"certain": "alarm", "likely": "doubt"}.get(sure, "")
        who = f'<span class="big">{safe(suspect.module)}</span> <span class="tag {look}">{safe(sure)}</span>'
        who += f'<br>{safe(suspect.why)} <span class="soft">(rule: {safe(suspect.rule)})</span>'
    else:
        who = '<span class="soft">none: no rule names a driver</span>'
    bucket = f"<code>{safe(analysis.bucket)}</code>" if analysis.bucket else ""
    parts.append(definitions([("suspect", who), ("bucket", bucket)]))
    if check is not None:
        rows = []
        for parameter in check.parameters:
            words, points = parameter_words(parameter)
            value, _, meaning = words.partition("  ")
            means = safe(meaning) + (f'<br><span class="soft">{safe(points)}</span>' if points else "")
            rows.append(("", (mono(parameter.number), ("mono value", safe(value)), ("", means))))
        parts.append(table(("", "parameter", "means"), rows))
    return f'<section class="card verdict">{"".join(parts)}</section>'


def _crash(analysis: Analysis, crash: CrashContext) -> str:
    parts = [
        definitions(
            [
                ("place", f"<code>{safe(crash.place)}</code>"),
                ("registers from", safe(f"{crash.origin}, of processor {crash.processor}")),
                ("passed over", "<br>".join(safe(text) for text in crash.passed_over)),
                ("exception", safe(crash.exception.words) if crash.exception is not None else ""),
            ]
        )
    ]
    rows: list[tuple[str, Sequence[Cell]]] = []
    for at, one in enumerate(crash.instructions):
        touched = "<br>".join(
            f"{safe(did)} <code>{safe(format_address(operand.address))}</code>, {safe(lies)}"
            for operand in one.operands
            for did, lies in [operand_words(operand)]
        )
        cells = (mono(format_address(one.address)), mono(one.data.hex()), mono(one.text), ("long", touched))
        rows.append(("" if at else "hit", cells))
    parts.append(table(("address", "bytes", "instruction", "memory"), rows) if rows else
                 '<p class="soft">The instruction there cannot be read.</p>')  # fmt: skip
    architecture = architecture_of(analysis.target.version.machine_type)
    if architecture is not None:
        parts.append(preformatted(register_lines(crash.context, None, architecture, crash.known)))
    return "".join(parts)


def _stack(stack: Stack) -> str:
    rows = [
        ("guess" if one.trust.guessed else "", _frame(number, one, note))
        for number, (one, note) in enumerate(zip(stack.frames, notes_of(stack), strict=True))
    ]
    heads = ("", "Child-SP", "RetAddr", "Call Site", "")
    cut = _shown(stack)
    parts = [table(heads, rows[:cut], "stack")] if rows else []
    if cut < len(rows):
        more = table(heads, rows[cut:], "stack")
        parts.append(f"<details><summary>{len(rows) - cut} more frames, most of them guesses</summary>{more}</details>")
    if any(frame.trust.guessed for frame in stack.frames):
        parts.append(f'<p><span class="tag doubt">?</span> {safe(GUESS_LEGEND.removeprefix("? "))}</p>')
    if not stack.whole:
        parts.append(f'<p class="soft">Not whole: {safe(stack.ended)}</p>')
    return "".join(parts)


def _shown(stack: Stack) -> int:
    """How many frames are shown at once: all, but where most are guesses."""
    guesses = 0
    for at, frame in enumerate(stack.frames):
        guesses += frame.trust.guessed
        if guesses > GUESSES:
            return at
    return len(stack.frames)


def _frame(number: int, frame: Frame, note: str) -> tuple[Cell, ...]:
    notes = ", ".join(text for text in (state_of(frame), note) if text)
    mark = ' <span class="tag doubt">?</span>' if frame.trust.guessed else ""
    return (
        mono(f"{number:02x}"),
        mono(format_address(frame.stack_pointer)),
        mono(format_address(frame.return_address)),
        ("mono site", f"{safe(frame.place)}{mark}"),
        ("soft long" if notes else "", safe(notes)),
    )


def _missing(analysis: Analysis) -> str:
    items = [f"<li>{safe(one.what)}: {safe(one.why)}{_lacks(one)}</li>" for one in grouped_missing(analysis.missing)]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _lacks(one: Missing) -> str:
    spans = ", ".join(f"{format_address(address)} ({count:#x} bytes)" for address, count in one.ranges[:16])
    more = f", and {len(one.ranges) - 16} more" if len(one.ranges) > 16 else ""
    return f'<br><span class="soft">lacks {safe(spans)}{more}</span>' if spans else ""


# ---- the rest --------------------------------------------------------------------------------------------------------


def _images(analysis: Analysis) -> str:
    suspect = analysis.suspect.module if analysis.suspect is not None else ""
    way, kernel = on_the_way(analysis), analysis.target.version.kern_base

    def row(fact: ImageFact) -> tuple[str, Sequence[Cell]]:
        module, name = fact.module, short_name(fact.module, kernel)
        tags = '<span class="tag alarm">suspect</span> ' if suspect and name == suspect else ""
        tags += '<span class="tag">on the stack</span>' if name in way else ""
        cells = (
            ("mono name", f"{safe(module.name)} {tags}"), mono(fact.version),
            ("long", safe(fact.description or fact.company)), mono(format_address(module.base)),
            mono(f"{module.size:x}"), mono(f"{module.time_date_stamp:08x}"), ("long", safe(fact.because)),
        )  # fmt: skip
        return ("suspect" if suspect and name == suspect else ""), cells

    heads = ("name", "version", "says of itself", "base", "size", "time stamp", "whose it is, by")
    return "".join(
        f"<h3>{safe(words)} ({len(group)})</h3>{table(heads, map(row, group))}"
        for words, group in grouped_images(analysis)
    )


def _processes(processes: Sequence[ProcessFact]) -> str:
    if not processes:
        return ""
    rows = (
        ("", (
            mono(fact.process_id), mono("?" if fact.parent_id is None else fact.parent_id),
            ("name", safe(fact.name or "?")), mono(format_address(fact.address)),
            mono(f"{fact.directory_table_base:#x}"), ("", safe(", ".join(map(str, fact.current_on)))),
        ))
        for fact in processes
    )  # fmt: skip
    parts = [table(("process id", "parent", "name", "EPROCESS", "directory table", "on processor"), rows)]
    parts += [
        f"<details><summary>Threads of {safe(fact.name or '?')} ({fact.process_id})</summary>{_threads(fact.threads)}"
        "</details>"
        for fact in processes
        if fact.threads
    ]
    return "".join(parts)


def _threads(threads: Iterable[ThreadFact]) -> str:
    parts: list[str] = []
    for one in threads:
        number = "?" if one.thread_id is None else one.thread_id
        process = "" if one.process_id is None else f" of process {one.process_id}"
        on = "" if one.processor is None else f" on processor {one.processor}"
        text = f"thread {number}{process}, {one.state}{on}, ETHREAD {format_address(one.address)}"
        parts.append(f"<p>{safe(text)}</p>" + (_stack(one.stack) if one.stack is not None else ""))
    return "".join(parts)


def _held(held: Held) -> str:
    marks = (
        ("k8", "held"), ("k4", "held in part"), ("k0", "missing"), ("bad", "could not be read (at least a page)"),
        ("inferred", "inferred, not read"), ("hole", "no memory"),
    )  # fmt: skip
    legend = "".join(
        f'<span><svg viewBox="0 0 14 14" aria-hidden="true"><rect class="{look}" x="1" y="1" width="12" height="12"/>'
        f"</svg>{words}</span>"
        for look, words in marks
    )
    parts = [f"{size(held.held.page_count << 12)} of {size(held.memory.page_count << 12)} are held"]
    for runs, words in ((held.unreadable, "could not be read"), (held.inferred, "of it inferred")):
        parts += [f"{size(runs.page_count << 12)} {words}"] if runs.page_count else []
    return f'<p>{", ".join(parts)}.</p>{coverage_svg(held)}<div class="legend">{legend}</div>'


def _pieces(pieces: Sequence[tuple[str, int, bytes]]) -> str:
    return "".join(
        f"<h3>{safe(what)}</h3>"
        + preformatted(hex_lines(address, data[:_MOST_BYTES], b"\1" * min(len(data), _MOST_BYTES)))
        for what, address, data in pieces[:_MOST_PIECES]
    )


def _prints(text: str) -> str:
    return preformatted(print_lines(text, _MOST_PRINTS)) if text.strip() else ""
