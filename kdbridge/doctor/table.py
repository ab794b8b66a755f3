"""The table of verdicts: every cause that the doctor knows, what it looks like, and what cures it.

docs/verbs/doctor.md shows it; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FINDING", "HEALTHY", "NOBODY", "TABLE", "Entry"]

HEALTHY, FINDING, NOBODY = 0, 1, 3
"""Exit codes: the link is well; something is wrong with it, or with who talks; there is nobody."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One verdict."""

    name: str
    title: str
    cause: str
    cure: str
    exit_code: int = FINDING


_ENTRIES = (
    # ---- the link is well: what the target does --------------------------------------------------------------------
    Entry("stopped", "a stopped target, and both ends hear each other", "Nothing is wrong with this link.",
          "kdbridge info, kdbridge dump.", HEALTHY),
    Entry("running", "a target that runs and prints", "Nothing is wrong with this link; the machine has not stopped.",
          "Wait until it stops, or stop it: --break-in.", HEALTHY),
    Entry("booting", "a target that loads modules",
          "The machine starts with its debugger on, and stops at each module until a debugger continues it, or until "
          "it gives up on there being one.",
          "Leave it alone until it has started, or take it over: kdbridge info stops it where it is.", HEALTHY),
    Entry("dumping", "a target that crashed, and is busy",
          "It printed that it crashed. Until its own dump is written it hears nothing.",
          "Wait until the dump is written (the blue screen shows how far it is): --wait 600.", HEALTHY),
    Entry("asking", "a target that waits for an answer to a question of its own",
          "An assertion or a driver asked a debugger that is gone, and the machine waits for the answer.",
          "kdbridge info answers \"break\" (and declines files), so that it stays stopped.", HEALTHY),
    Entry("boot-debugger", "a boot manager's or loader's debugger, not the kernel's",
          "The machine is stopped before Windows runs: bcdedit /bootdebug is on.",
          "Continue it (kdbridge continue), and come back when the kernel is there.", FINDING),
    Entry("hypervisor", "a hypervisor's debugger, not the kernel's",
          "bcdedit /hypervisorsettings leads to the same port as the kernel's debugger.",
          "Give the kernel's debugger a port of its own (bcdedit /dbgsettings).", FINDING),
    # ---- nobody ----------------------------------------------------------------------------------------------------
    Entry("silence", "not one byte came",
          "The machine runs and has nothing to say, is off, was started without debugging, or writes its own dump; or "
          "the cable is not a null-modem one, leads elsewhere, or the port at its other end is another.",
          "Look whether it runs (then --break-in stops it), whether bcdedit /debug is on and /dbgsettings names this "
          "port, and whether the cable crosses pins 2 and 3.", NOBODY),
    Entry("nobody-connected", "nobody connected", "What should lead here does not: no virtual machine opened the line.",
          "Start the virtual machine whose serial port leads here, or see where it leads.", NOBODY),
    Entry("network", "no session with a target on the network", "See the evidence.", "See the evidence.", NOBODY),
    # ---- bytes, and no packets -------------------------------------------------------------------------------------
    Entry("wrong-baud", "the target's end of the line has another speed",
          "The two ends of the line are set to different speeds.",
          "Give the speed that the target has (bcdedit /dbgsettings, or the port server's settings) as ?baud=."),
    Entry("text", "text of something that is no debugger",
          "Something else uses this port: firmware, a boot menu, a console, an EMS prompt.",
          "Redirect that to another port (bcdedit /ems off, the firmware's serial redirection, Linux's console=), or "
          "wait until the kernel has this one."),
    Entry("inverted", "every bit is upside down",
          "A level shifter is missing or there are two of them: logic levels meet RS-232 levels.",
          "Use an adapter for the levels that the port has (RS-232, or TTL with inversion off)."),
    Entry("parity", "the other end sends seven bits and parity",
          "Eight bits and no parity are agreed with nobody: the port, or a box between, is set to 7E1 or the like.",
          "Set every port between the two to 8 data bits, no parity, 1 stop bit."),
    Entry("seven-bit", "the highest bit of each byte is lost",
          "A port, a box or a program between is set to seven bits, or strips them (istrip).",
          "Set every port between the two to 8 data bits, and a terminal between to raw."),
    # ---- packets, and damage ---------------------------------------------------------------------------------------
    Entry("flow-control", "something between takes the bytes 11 and 13 away",
          "XON/XOFF flow control is on somewhere between; KD's packets contain its two characters.",
          "Turn software flow control off on every port between (xonxoff=0 is the default here)."),
    Entry("newlines", "something between translates ends of lines",
          "A console server, or a terminal that is not raw, translates CR and LF.",
          "Use its raw TCP port, or set the terminal to raw (stty raw)."),
    Entry("telnet", "a telnet server handles the bytes",
          "The TCP port speaks telnet: it doubles FF, and takes an FF from here for a command.",
          "Use the server's raw TCP port; or rfc2217: if it has one of that kind."),
    Entry("overrun", "a receiver overruns: bytes are lost in bursts",
          "The receiver is not emptied in time: a UART without a FIFO, a busy host, interrupts that come too late.",
          "Use a lower speed at both ends, a port with a FIFO that is on, or hardware flow control on a box between."),
    Entry("lost-bytes", "bytes get lost on the way",
          "A loose contact, a buffer between that is full, or a receiver that overruns now and then.",
          "Look at the plugs; use a lower speed; put no box or program between that drops what it cannot hand on."),
    Entry("cut-packets", "packets are cut off",
          "Something between drops the rest of a packet: a port server or virtual port whose buffer is too small.",
          "Make its buffer larger than 4 KiB, or use a lower speed."),
    Entry("lost-packets", "whole packets get lost",
          "Something between drops whole packets: a port server, a network without TCP, a virtual port that is full.",
          "Take out what is between, or use TCP; a capture works nevertheless, more slowly."),
    Entry("doubled-packets", "packets come twice",
          "Something between repeats them, or the target's timers are shorter than the way there and back takes.",
          "Take out what is between; a capture works nevertheless.", FINDING),
    Entry("noise", "bytes come in that nobody sent",
          "Noise on the line, a second sender, or plugs that touch.",
          "Use a shorter, shielded cable with a common ground; leave the line to one sender."),
    Entry("bit-errors", "bits are turned over on the way",
          "Noise: a long or unshielded cable, no common ground, speeds that differ by some percent.",
          "Use a shorter, shielded cable and a lower speed; a capture works nevertheless, and --verify-reads makes "
          "sure of what it brings."),
    Entry("stalls", "the line stands still in the middle of packets",
          "A box, a virtual port or a busy machine between holds bytes back for longer than a packet may take.",
          "Take out what is between; on a virtual machine give the host processor time."),
    # ---- who hears whom --------------------------------------------------------------------------------------------
    Entry("not-heard", "the target is heard, and does not hear us",
          "One direction works: the line to the target (its pin 2) is open, the speed of its receiver is another, or "
          "this end may only read.",
          "See the wire from this end's pin 3, what stands between, and whether the port or socket is open for "
          "writing."),
    Entry("garbled-there", "what is sent to the target arrives damaged",
          "The target asks for repetitions; what comes from it is whole. Noise, a lost bit or flow control on that way "
          "only.",
          "See the wire from this end's pin 3, and the settings of every port on that way."),
    Entry("echo", "what is sent comes back",
          "A loopback plug, a terminal that echoes, or a cable with both wires joined.",
          "Take the plug or the joint away; set a terminal between to raw without echo (stty raw -echo)."),
    Entry("another-debugger", "another debugger talks on this line",
          "A second program or machine is on the line (WinDbg, another kdbridge, a splitter).",
          "End that debugger, or use kdbridge tap to share the line."),
    Entry("second-writer", "something else writes between the packets",
          "Firmware, a console or an EMS prompt uses the debugger's port as well.",
          "Redirect it to another port; packets survive it, more slowly."),
    Entry("slow", "answers come late: something gathers bytes before it hands them on",
          "A USB adapter's latency timer: it waits, usually 16 ms, for more bytes to come before it hands on what it "
          "has.",
          "On Linux as root: echo 1 > /sys/class/tty/NAME/device/latency_timer. On Windows: the port's advanced "
          "settings, Latency Timer, 1 ms."),
    Entry("undecided", "something is wrong, and what it is cannot be told",
          "One of what is possible, below.", "Listen longer (--seconds 60), or change one thing and look again."),
)  # fmt: skip

TABLE: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}
"""By name, in the order of the page."""
