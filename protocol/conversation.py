"""What can happen in a conversation with a target: the events that `KdConnection` hands out."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from .link import Discarded, LinkRestarted
from .manipulate import Manipulate
from .state_change import StateChange

__all__ = [
    "Conversation",
    "FailureReason",
    "FileDeclined",
    "KdEvent",
    "Malformed",
    "OrphanReply",
    "Printed",
    "PromptAnswered",
    "Replied",
    "RequestFailed",
    "StateChanged",
    "Told",
    "TraceReceived",
]


class Conversation(enum.Enum):
    """What is known of the target's state."""

    UNKNOWN = "unknown"
    STOPPED = "stopped"
    RUNNING = "running"


class FailureReason(enum.Enum):
    """Why a request came to nothing."""

    NOT_ACKNOWLEDGED = "the target did not acknowledge it"
    NO_REPLY = "the target acknowledged it and never answered"
    DAMAGED = "its answer came damaged again and again; a shorter one may come whole"
    RESTARTED = "the target restarted its side of the line meanwhile"


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The target reported a state change. `repeated`: the one it had reported already."""

    change: StateChange
    repeated: bool


class Replied(NamedTuple):
    """The answer to `request`. Its status may still be a refusal."""

    request: Manipulate
    reply: Manipulate


@dataclass(frozen=True, slots=True)
class Told:
    """A request that has no reply was acknowledged."""

    request: Manipulate


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """The request came to nothing; for one that changes the target it is unknown whether it was carried out."""

    request: Manipulate
    reason: FailureReason


@dataclass(frozen=True, slots=True)
class OrphanReply:
    """A reply nobody here asked for: a former debugger did, or the question was given up."""

    reply: Manipulate


@dataclass(frozen=True, slots=True)
class Printed:
    """A debug print of the target: bytes as they came."""

    processor: int
    text: bytes


@dataclass(frozen=True, slots=True)
class PromptAnswered:
    """The target asked at a prompt; `answer` was sent."""

    prompt: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class FileDeclined:
    """The target wanted a file of ours and was declined."""

    path: str


@dataclass(frozen=True, slots=True)
class TraceReceived:
    """Trace data or a control request, dropped."""

    size: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """A good packet whose message fits nothing; `problem` says what is wrong with it."""

    packet_type: int
    problem: str


KdEvent: TypeAlias = (
    StateChanged
    | Replied
    | Told
    | RequestFailed
    | OrphanReply
    | Printed
    | PromptAnswered
    | FileDeclined
    | TraceReceived
    | Malformed
    | LinkRestarted
    | Discarded
)
