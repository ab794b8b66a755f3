"""The main job, start to end: a machine at a blue screen in another process, on a serial line; two dumps of it.

Every command is shown before it runs, as a user would type it.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def step(text: str, *command: str) -> None:
    """Show and run one command; end with its exit code if it fails."""
    print(f"\n# {text}\n$ kdbridge {shlex.join(command)}", flush=True)
    done = subprocess.run([BIN / "kdbridge", *command], check=False)
    if done.returncode:
        print(f"that ended with exit code {done.returncode}", flush=True)
        sys.exit(done.returncode)


def main() -> None:
    """Run it all in a temporary folder, and keep the dumps in out/."""
    out = ROOT / "out"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kdbridge-demo-") as folder:
        link = str(Path(folder, "ttyTARGET"))
        print("# Another process is a machine at a blue screen, at the other end of a serial line")
        command = ["simulate", "bugcheck", "--on", f"pty:{link}", "--processors", "4", "--memory", "128M"]
        print(f"$ kdbridge {shlex.join(command)} &", flush=True)
        machine = subprocess.Popen([BIN / "kdbridge", *command], stdout=subprocess.PIPE, text=True)
        try:
            if machine.stdout is None or not machine.stdout.readline():
                sys.exit("the simulated machine did not start")
            target = f"serial:{link}?baud=115200"
            step("Who is it, and why did it stop?", "info", target)
            step("Its registers", "registers", target)
            for kind in ("kernel", "complete"):
                dump = Path(folder, f"{kind}.dmp")
                snapshot = Path(folder, f"{kind}.snapshot")
                text = f"A {kind} dump"
                step(text, "dump", target, str(dump), "--kind", kind, "--keep-snapshot", str(snapshot))
                step("Page by page, is it what was read?", "verify", str(dump), "--against", str(snapshot))
                shutil.copyfile(dump, out / dump.name)
            step("The machine stands as it stood", "registers", target, "--processor", "1")
        finally:
            machine.terminate()
            machine.wait(10)
    print("\n# The dumps are in out/. Next:")
    print("#   kdbridge info out/kernel.dmp")
    print("#   kdbridge simulate out/complete.dmp --on tcp:127.0.0.1:5003     puts this crash back on a line")
    print("#   on Windows: windbg -z kernel.dmp, or windbg -k com:ipport=5003,port=ADDRESS")


if __name__ == "__main__":
    main()
