"""A scapy layer for every message of `protocol`, made from the message's own fields."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

from scapy.packet import Packet

from protocol.errors import KdError, LocalProtocolError
from protocol.kdnet.control import Poke, Response, decode_poke, decode_response
from protocol.kdnet.packet import ConnectionCheck, read_packet
from protocol.manipulate import UNIONS, Manipulate, api_name

from .coded import Coded, Value
from .talk import decode_message

__all__ = ["layer_of", "message_layer"]

_HEAD = ("api", "processor_level", "processor", "status")


def message_layer(packet_type: int, to_target: bool, payload: bytes) -> type[Packet] | None:
    """The layer for what a KD packet says; None: nothing that a codec knows."""
    try:
        message = decode_message(packet_type, to_target, payload)
    except KdError:
        return None
    if message is None:
        return None
    kind: Any = type(message)
    return layer_of(kind, message.api if isinstance(message, Manipulate) else None, packet_type, to_target)


@functools.lru_cache(maxsize=256)
def layer_of(kind: Any, api: int | None = None, packet_type: int = 0, to_target: bool = False) -> type[Packet]:
    """The layer of a kind of message: its fields, and for a manipulate packet those of its API's union."""
    if kind is Manipulate:
        union = UNIONS.get(api or 0)
        names = (*_HEAD, *(union.fields if union else ()), "data")
        name = f"Manipulate {api_name(api or 0)}"
    else:
        names = _names(kind)
        name = kind.__name__
    return type(name.replace(" ", ""), (_Message,), {
        "name": name, "fields_desc": [Value(each, None) for each in names], "about": (kind, packet_type, to_target),
        "__doc__": f"{name}, by its codec.",
    })  # fmt: skip


class _Message(Coded):
    """A message. Unchanged, it is built as it came; what was changed goes through its codec."""

    name: str | None = "message"
    fields_desc: ClassVar[list[Any]] = []
    about: tuple[type, int, bool] = (Manipulate, 0, False)

    def taken_apart(self, data: bytes) -> tuple[dict[str, Any], bytes]:
        message = self._decoded(data)
        return _values(message), b""

    def put_together(self, payload: bytes) -> bytes:
        base = self._decoded(self.original) if self.original else None
        if base is None:
            raise LocalProtocolError(
                "a message layer comes from dissecting a message; change one, do not begin with none"
            )
        values = _values(base)
        changed = {name: value for name, value in self.fields.items() if values[name] != value}
        if not changed:
            return bytes(self.original) + payload
        encoded: bytes = _with(base, changed).encode()
        return encoded + payload

    def _decoded(self, data: bytes) -> Any:
        kind, packet_type, to_target = self.about
        if kind is Poke:
            return decode_poke(data)
        if kind is Response:
            return decode_response(data)
        if kind is ConnectionCheck:
            return read_packet(data)
        return decode_message(packet_type, to_target, data)


def _values(message: Any) -> dict[str, Any]:
    if isinstance(message, Manipulate):
        return {**{name: getattr(message, name) for name in _HEAD}, **message.fields(), "data": message.data}
    return {name: getattr(message, name) for name in _names(type(message))}


def _names(kind: type) -> tuple[str, ...]:
    """A message's fields, but the copy of its bytes that some carry."""
    return tuple(each.name for each in dataclasses.fields(kind) if each.compare)


def _with(message: Any, changed: dict[str, Any]) -> Any:
    if not isinstance(message, Manipulate):
        return dataclasses.replace(message, **changed)
    own = {name: value for name, value in changed.items() if name in (*_HEAD, "data")}
    union = {name: value for name, value in changed.items() if name not in own}
    if union:
        own["union"] = UNIONS[message.api].encode(union, message.union)
    return message._replace(**own)
