"""The same job over the network: a machine in another process, with an address of its own where that can be had.

Two network namespaces are made for it, joined by a virtual cable, and taken away at the end: one for the machine, one
for the debugger. Where none can be made (no root, no `ip`), both are on loopback.
"""

from __future__ import annotations

import filecmp
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.shown import OUT, machine, step

_HOST, _TARGET = "192.0.2.1", "192.0.2.2"
_PORT = 50000


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def two_hosts() -> Iterator[tuple[list[str], list[str], str]]:
    """How to run a command at the debugger's host and at the machine, and the debugger's address."""
    name = f"kdb{os.getpid()}"
    host, target = f"{name}h", f"{name}t"
    made: list[str] = []
    try:
        try:
            for namespace in (host, target):
                _ip("netns", "add", namespace)
                made.append(namespace)
            _ip("link", "add", host, "netns", host, "type", "veth", "peer", "name", target, "netns", target)
            for namespace, address in ((host, _HOST), (target, _TARGET)):
                _ip("-n", namespace, "address", "add", f"{address}/24", "dev", namespace)
                _ip("-n", namespace, "link", "set", namespace, "up")
                _ip("-n", namespace, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", "") or str(error)
            print(f"# no network of its own could be made ({detail.strip()}); both ends are on loopback")
            yield [], [], "127.0.0.1"
        else:
            print(f"# the machine is {_TARGET}, the debugger's host {_HOST}: two network namespaces and a cable")
            yield ["ip", "netns", "exec", host], ["ip", "netns", "exec", target], _HOST
    finally:
        for namespace in made:
            _ip("netns", "delete", namespace)


def main() -> None:
    """Dump over the network, dump over a serial line, and compare the two files."""
    OUT.mkdir(exist_ok=True)
    key = ".".join(f"{secrets.randbits(40) | 1:x}" for _ in range(4))
    secret = {"KDBRIDGE_KEY": key}  # `kdbridge keygen` makes one; in the environment no process list shows it
    size = ("--processors", "2", "--memory", "64M")
    with tempfile.TemporaryDirectory(prefix="kdbridge-demo-") as folder:
        over_net, over_serial = Path(folder, "network.dmp"), Path(folder, "serial.dmp")
        with two_hosts() as (at_host, at_target, address):
            print("\n# Another process is a machine at a blue screen that was set up with bcdedit /dbgsettings net")
            with machine("bugcheck", "--on", f"net:{address}:{_PORT}", *size, inside=at_target, environment=secret):
                target = f"net:port={_PORT}"
                step("Who is it, and why did it stop?", "info", target, inside=at_host, environment=secret)
                step("A kernel dump", "dump", target, str(over_net), "--kind", "kernel", inside=at_host,
                     environment=secret)  # fmt: skip
        link = str(Path(folder, "ttyTARGET"))
        print("\n# The same machine on a serial line")
        with machine("bugcheck", "--on", f"pty:{link}", *size):
            step("A kernel dump", "dump", f"serial:{link}", str(over_serial), "--kind", "kernel")
        step("Page by page, are the two the same?", "verify", str(over_net), "--against", str(over_serial))
        if not filecmp.cmp(over_net, over_serial, shallow=False):
            sys.exit("the two files differ")
        print("# and so are the two files, byte for byte")
        shutil.copyfile(over_net, OUT / over_net.name)
    print("\n# The dump is in out/network.dmp")


if __name__ == "__main__":
    main()
