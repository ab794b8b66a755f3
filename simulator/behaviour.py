"""How a machine answers, as plain values: where targets differ, what an answer means, what is kept of a request."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.manipulate import LARGEST_TRANSFER, ApiNumber, Manipulate

__all__ = ["Answer", "Behaviour", "Effect", "LoggedRequest", "Touch", "touch_of"]


class Effect(enum.Enum):
    """What an answer means for the machine as a whole."""

    NONE = "stays stopped"
    CONTINUE = "goes on"
    REBOOT = "restarts"
    CRASH = "crashes by bug check E2"
    SWITCH = "another processor takes over"
    RESELECT = "the processor that talks reports once more"


class Touch(enum.Enum):
    """What a request does to a machine, for whoever must know that nothing was touched."""

    WRITE = "writes"
    CONTROL = "continues, switches or restarts"


_CONTROL = frozenset(
    {
        ApiNumber.CONTINUE,
        ApiNumber.CONTINUE2,
        ApiNumber.REBOOT,
        ApiNumber.CAUSE_BUG_CHECK,
        ApiNumber.SWITCH_PROCESSOR,
        ApiNumber.SWITCH_PARTITION,
        ApiNumber.PAGE_IN,
    }
)
_READS = frozenset(
    {
        ApiNumber.READ_VIRTUAL_MEMORY,
        ApiNumber.READ_PHYSICAL_MEMORY,
        ApiNumber.READ_PHYSICAL_BULK,
        ApiNumber.GET_CONTEXT,
        ApiNumber.GET_CONTEXT_EX,
        ApiNumber.READ_CONTROL_SPACE,
        ApiNumber.GET_VERSION,
        ApiNumber.READ_MACHINE_SPECIFIC_REGISTER,
        ApiNumber.SEARCH_MEMORY,
        ApiNumber.QUERY_MEMORY,
        ApiNumber.GET_BUS_DATA,
        ApiNumber.CHECK_LOW_MEMORY,
        ApiNumber.QUERY_SPECIAL_CALLS,
        ApiNumber.GET_INTERNAL_BREAK_POINT,
    }
)


def touch_of(api: int) -> Touch | None:
    """What this request does to a machine; None: it only reads. What nobody knows is taken for a write."""
    if api in _READS:
        return None
    return Touch.CONTROL if api in _CONTROL else Touch.WRITE


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as it was asked, and what it did."""

    request: Manipulate
    status: int | None
    touch: Touch


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Where real targets differ. The default is a current Windows kernel."""

    largest_transfer: int = LARGEST_TRANSFER
    refused: frozenset[int] = frozenset()
    """APIs answered with C0000001."""
    unanswered: frozenset[int] = frozenset()
    """APIs that are acknowledged and never answered."""
    refuse_page_zero: bool = True
    whole_control_space: bool = False
    """ReadControlSpace returns the whole structure whatever was asked (T42)."""
    whole_control_size: bool = False
    """ReadControlSpace returns what was asked, and tells the size of the whole (ROS). WinDbg warns of it, so that a
    Windows whose structure is longer than the debugger's cannot do this."""
    longer_context: int = 0
    """Bytes of extended state behind a CONTEXT (T48)."""
    garbage_processor: bool = False
    """State changes say level 1284, processor 257."""
    echo_control_writes: bool = False
    """WriteControlSpace's reply carries the data back (T43)."""
    hand_back_after_switch: bool = True
    """After SwitchProcessor, a continue goes to the processor that stopped first (T29)."""
    bulk_reads: bool = False
    """Bulk reads of physical memory are answered: by targets on the network, from version 4 on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply (None: this request has none) and what it means for the machine."""

    reply: Manipulate | None
    effect: Effect = Effect.NONE
    unacknowledged: tuple[Manipulate, ...] = ()
    """Replies that go out at once, one behind the other: nobody acknowledges them."""
