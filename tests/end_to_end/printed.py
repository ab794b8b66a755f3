"""What Microsoft's debugger engine prints, as values. A line that is not understood may be a complaint: an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

__all__ = [
    "Frame",
    "Loaded",
    "Memory",
    "Session",
    "UnknownLineError",
    "parse_bug_check",
    "parse_images",
    "parse_memory",
    "parse_modules",
    "parse_registers",
    "parse_session",
    "parse_stack",
    "unknown_lines",
]

_ADDRESS = r"(?:[0-9a-f]{8}`)?[0-9a-f]{8}"
_SITE = r"[A-Za-z0-9_]+(?:![A-Za-z0-9_]+)?(?:\+0x[0-9a-f]+)?|0x[0-9a-f`]+"

_NOT_INSTALLED = re.compile(
    "|".join(
        (
            # There is no symbol server.
            r"Error: Change all symbol paths attempts to access 'C:\\nosyms' failed: 0x2 - File not found\.",
            r"\*+ Symbol Path validation summary \*+",
            r"Response +Time \(ms\) +Location",
            r"Error +\d* +C:\\nosyms",
            r"(Symbol|Executable) search path is:( C:\\nosyms)?",
            r"\*\*\* ERROR: Symbol file could not be found\.  Defaulted to export symbols for ntkrnlmp\.exe -",
            r"\*\*\* ERROR: Module load completed but symbols could not be loaded for \w+\.(sys|dll)",
            r"\*+ Symbol Loading Error Summary \*+",
            r"Module name +Error",
            r"(ntkrnlmp|ntoskrnl|\w+) +The system cannot find the file specified",
            r"You can troubleshoot most symbol related issues by turning on symbol loading diagnostics .*",
            r"You should also verify that your symbol search path \(\.sympath\) is correct\.",
            # There are no extensions.
            r"Unable to add extension DLL: (kdexts|kext|exts)",
            r"The call to LoadLibrary\(ext\) failed, Win32 error 0n2",
            r'    "File not found\."',
            r"Please check your debugger configuration and/or network access\.",
        )
    )
)
"""What this installation prints about itself, whatever it opens: Windows' own dumps get the same lines."""

_TALK = re.compile(
    "|".join(
        (
            r"\[kdexec\] .*",
            r"Microsoft \(R\) Windows Debugger Version 10\.0\.15063\.400 AMD64",
            r"Copyright \(c\) Microsoft Corporation\. All rights reserved\.",
            r"Loading (Kernel|User) Symbols",
            r"Loading unloaded module list",
            r"\.+",
            r"\*+|\* +\*|\* +Bugcheck Analysis +\*",
            r"RetAddr +: Args to Child +: Call Site",
            rf"{_ADDRESS} :( {_ADDRESS}){{4}} : ({_SITE})",
        )
    )
)
"""What it says on the way, and the stack that it shows after a bug check."""


class UnknownLineError(Exception):
    """The engine printed something that nobody expected."""


def _number(text: str) -> int:
    return int(text.replace("`", ""), 16)


def _lines(text: str) -> list[str]:
    """Lines that hold something, without those about what is not installed here."""
    lines = (line.rstrip() for line in text.splitlines())
    return [line for line in lines if line and not _NOT_INSTALLED.fullmatch(line)]


def unknown_lines(text: str, expected: Iterable[str]) -> list[str]:
    """What was printed beside these lines and the engine's usual talk: nothing, where it has nothing to complain of."""
    known = set(expected)
    return [line for line in _lines(text) if line not in known and not _TALK.fullmatch(line)]


def parse_registers(text: str) -> dict[str, int]:
    """What `r` prints, by the names it prints; the instruction it disassembles as "at" """
    values: dict[str, int] = {}
    for printed in _lines(text):
        # What the flags mean stands on a line of its own, or at the end of one.
        line = re.sub(r" *iopl=\d( +\w\w)+$| [NZCV-]{4} EL\d$", "", printed)
        if not line or re.fullmatch(rf"({_SITE}):", line):
            continue
        if found := re.fullmatch(rf"({_ADDRESS}) (?:[0-9a-f]+ +\w.*|\?\? +\?\?\?)", line):
            values["at"] = _number(found[1])
        elif re.fullmatch(r"( *\w+=[0-9a-f]+)+", line):
            values |= {name: int(value, 16) for name, value in re.findall(r"(\w+)=([0-9a-f]+)", line)}
        else:
            raise UnknownLineError(line)
    return values


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of `k`."""

    stack_pointer: int
    return_address: int
    site: str


def parse_stack(text: str) -> list[Frame]:
    """What `k` prints."""
    lines = _lines(text)
    if not lines or not re.fullmatch(r"Child-SP +RetAddr +Call Site", lines[0]):
        raise UnknownLineError(text)
    frames = []
    for line in lines[1:]:
        found = re.fullmatch(rf"({_ADDRESS}) ({_ADDRESS}) ({_SITE})", line)
        if found is None:
            raise UnknownLineError(line)
        frames.append(Frame(_number(found[1]), _number(found[2]), found[3]))
    return frames


@dataclass(slots=True)
class Loaded:
    """What `lm` lists: (start, end) by name, and what was unloaded, latest first."""

    modules: dict[str, tuple[int, int]] = field(default_factory=dict)
    unloaded: list[tuple[str, int, int]] = field(default_factory=list)


def parse_modules(text: str) -> Loaded:
    """What `lm` prints."""
    loaded = Loaded()
    unloaded = False
    for line in _lines(text):
        if re.fullmatch(r"start +end +module name", line):
            continue
        if line == "Unloaded modules:":
            unloaded = True
        elif (found := re.fullmatch(rf"({_ADDRESS}) ({_ADDRESS})   (\S+)", line)) and unloaded:
            loaded.unloaded.append((found[3], _number(found[1]), _number(found[2])))
        elif found := re.fullmatch(
            rf"({_ADDRESS}) ({_ADDRESS})   (\w+) +(?:T )?\((deferred|no symbols|export symbols)\)( +\S+)?", line
        ):
            loaded.modules[found[3]] = _number(found[1]), _number(found[2])
        else:
            raise UnknownLineError(line)
    return loaded


def parse_images(text: str) -> dict[str, tuple[str, int, int, int]]:
    """What `lmv` says of each loaded module: image name, timestamp, checksum and size."""
    images: dict[str, tuple[str, int, int, int]] = {}
    for block in re.split(rf"^(?={_ADDRESS} {_ADDRESS})", text.partition("Unloaded modules:")[0], flags=re.MULTILINE)[
        1:
    ]:
        name = block.split()[2]
        number = "([0-9A-F]{8})"
        found = re.search(
            rf"Image name: (\S+)\s+Timestamp: .*\({number}\)\s+CheckSum: +{number}\s+ImageSize: +{number}", block
        )
        if found is None:
            raise UnknownLineError(block)
        images[name] = found[1], int(found[2], 16), int(found[3], 16), int(found[4], 16)
    return images


def parse_bug_check(text: str) -> tuple[int, ...]:
    """What `.bugcheck` prints: code and parameters."""
    found = re.fullmatch(rf"Bugcheck code ([0-9A-F]{{8}})\nArguments ({_ADDRESS}(?: {_ADDRESS}){{3}})", text.strip())
    if found is None:
        lines = _lines(text)
        if len(lines) != 2:
            raise UnknownLineError(text)
        return parse_bug_check("\n".join(lines))
    return int(found[1], 16), *map(_number, found[2].split())


@dataclass(slots=True)
class Memory:
    """What a script of `dq ADDRESS L1` prints, in its order: address and value, None where there is no memory."""

    words: list[tuple[int, int | None]] = field(default_factory=list)
    absent: set[int] = field(default_factory=set)
    """Frames that are mapped, and that the engine misses in a bitmap dump."""


_ABSENT = (
    r"Page ([0-9a-f]+) (?:too large to be|not present) in the dump file\.(?: Type \"\.hh dbgerr004\" for details)?"
)


def parse_memory(text: str) -> Memory:
    """What such a script prints. The engine echoes each command of it behind its prompt."""
    memory = Memory()
    for line in _lines(text):
        if re.fullmatch(r"\d+: kd> dq .*|kd> dq .*", line):
            continue
        if absent := re.fullmatch(_ABSENT, line):
            memory.absent.add(int(absent[1], 16))
            continue
        value = re.fullmatch(rf"({_ADDRESS})  (?:({_ADDRESS})|\?{{8}}`\?{{8}})", line)
        if value is None:
            raise UnknownLineError(line)
        memory.words.append((_number(value[1]), None if value[2] is None else _number(value[2])))
    return memory


@dataclass(frozen=True, slots=True)
class Session:
    """What `vertarget` prints."""

    version: str
    built_by: str
    kernel_base: int
    loaded_module_list: int
    time: datetime
    uptime: timedelta


_SESSION: Mapping[str, str] = {
    "version": r"(Windows .* Kernel Version .*)",
    "product": r"Product: (WinNt, suite: TerminalServer SingleUserTS)",
    "built": r"Built by: (\S+)",
    "machine": r"Machine Name:",
    "kernel": r"Kernel base = 0x([0-9a-f`]+) PsLoadedModuleList = 0x([0-9a-f`]+)",
    "time": r"Debug session time: \w{3} (\w{3} +\d+ \d\d:\d\d:\d\d\.\d{3} \d{4}) \(UTC \+ 0:00\)",
    "uptime": r"System Uptime: (\d+) days (\d+):(\d\d):(\d\d\.\d{3})( \(checked kernels begin at 49 days\))?",
}


def parse_session(text: str) -> Session:
    """What `vertarget` prints, which is also what the engine says when it opens a target."""
    found: dict[str, re.Match[str]] = {}
    for line in _lines(text):
        name, match = next(((n, m) for n, p in _SESSION.items() if (m := re.fullmatch(p, line))), ("", None))
        if match is None or name in found:
            raise UnknownLineError(line)
        found[name] = match
    if missing := _SESSION.keys() - found.keys():
        raise UnknownLineError(f"no line for {', '.join(sorted(missing))} in:\n{text}")
    days, hours, minutes, seconds, _ = found["uptime"].groups()
    return Session(
        found["version"][1],
        found["built"][1],
        _number(found["kernel"][1]),
        _number(found["kernel"][2]),
        datetime.strptime(found["time"][1], "%b %d %H:%M:%S.%f %Y").replace(tzinfo=UTC),
        timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=float(seconds)),
    )
