"""Whose an image is: Windows' own that only does what others ask, Microsoft's, somebody else's, or not to be told."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from kdbridge.discovery.modules import read_path
from kdbridge.source import Source
from kdbridge.target import Module, Target

from .images import image_facts
from .model import ImageFact
from .names import Names, short_name

__all__ = ["INFRASTRUCTURE", "Judge", "Judgement", "Whose"]

INFRASTRUCTURE = frozenset(
    {
        "nt", "ntoskrnl", "ntkrnlmp", "ntkrnlpa", "ntkrpamp", "hal", "halmacpi", "kdcom", "kdnet", "kdstub", "kdusb",
        "kd1394", "verifier", "verifierext", "wdf01000", "wudfrd", "fltmgr", "ndis", "ci", "clfs", "pshed", "bootvid",
    }
)  # fmt: skip
"""Images that carry out what drivers ask for: that they stand on a stack says nothing. Names as debuggers say them."""
_SYSTEM_FOLDERS = ("\\systemroot\\", "\\windows\\", "\\winnt\\")


class Whose(enum.Enum):
    """In words, of an image that was named before."""

    INFRASTRUCTURE = "it is a part of Windows that does what drivers ask"
    MICROSOFT = "it is Microsoft's"
    THIRD_PARTY = "it is a third party's"
    UNTOLD = "whose it is cannot be told"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whose an image is, what says so, and whether that is its own version resource."""

    whose: Whose
    because: str
    sure: bool


class Judge:
    """Judges images. Reads the version resource of those it is asked about, and of each once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known: tuple[Target, Names] | None = None
        self.facts: dict[int, ImageFact] = {}
        """By base: what was read of the images that were asked about."""

    def know(self, target: Target, names: Names) -> None:
        """Whose images they are. Call it before `of`, and again when more is known of them."""
        self._known = target, names
        self.facts.update({one.base: replace(self.facts[one.base], module=one) for one in target.modules
                           if one.base in self.facts})  # fmt: skip

    async def of(self, module: Module) -> Judgement:
        """By its name, by its version resource, else by where its file lies."""
        assert self._known is not None  # noqa: S101
        target, names = self._known
        module = await names.named(module)
        if short_name(module, names.kernel).lower() in INFRASTRUCTURE:
            return Judgement(Whose.INFRASTRUCTURE, "its name is in the list of these", sure=True)
        fact = self.facts.get(module.base)
        if fact is None:
            found, _ = await image_facts(self._source, target, names, only=(module,))
            fact = self.facts[module.base] = found[0] if found else ImageFact(module)
        if fact.microsoft is not None:
            return Judgement(Whose.MICROSOFT if fact.microsoft else Whose.THIRD_PARTY, fact.because, sure=True)
        told = module.path or await read_path(self._source, target.version, module)
        path = told.lower().replace("/", "\\")
        if path and "\\" in path and not any(folder in path for folder in _SYSTEM_FOLDERS):
            return Judgement(Whose.THIRD_PARTY, f"its file lies outside of Windows' folder: {told}", sure=False)
        return Judgement(Whose.UNTOLD, fact.because or "nothing says whose", sure=False)
