"""KDNET, the debugger's protocol over UDP, both ends, without I/O (kdnet.md is the reference).

    socket ─► channel (HostChannel, TargetChannel) ─► KdnetLink ─► KdConnection, KdTarget
              genuine? new? whose? which key?          KD packets   as over a serial line

Who has the socket drives a link so:

* A datagram came: `link.receive_datagram(datagram, source, now)`. True: wake whoever sits above, by its own
  `receive_data(b"", now)`, which takes the link's events (and, in a KdConnection, puts off the reply's timeout:
  so garbage and pokes must not do this). False: nobody above need know.
* Then, either way, and after every call of the link or of what sits above: send all of `link.datagrams_to_send()`,
  each datagram to the address beside it. Where the owner takes `data_to_send()` from what sits above instead, those
  go to `link.peer`, and `datagrams_to_send()` still brings the responses and pokes. Datagrams are never joined.
* `next_timeout` and `handle_timeout` are asked of what sits above, as for every link. A host's end alone has
  nothing due, a target's pokes for ever.

An address is the socket's own tuple and comes back as it was given. While nothing usable comes, `link.facts` says what
did. `LinkRestarted(solicited=False)` means here: the target began a new life under a new key; what was read before
is of another memory. So a KdConnection over this link is made with `restart_is_new_life=True`.
"""

from .control import Endpoint
from .datagram import Channel, Cipher, Datagram, Sealer
from .facts import Address, KdnetFacts, SeenPoke
from .host import HostChannel
from .key import ControlKey, KeyTextError, format_key, parse_key
from .link import KdnetLink
from .target import TargetChannel

__all__ = [
    "Address",
    "Channel",
    "Cipher",
    "ControlKey",
    "Datagram",
    "Endpoint",
    "HostChannel",
    "KdnetFacts",
    "KdnetLink",
    "KeyTextError",
    "Sealer",
    "SeenPoke",
    "TargetChannel",
    "format_key",
    "parse_key",
]
