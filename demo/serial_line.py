"""The main job, start to end: a machine at a blue screen in another process, on a serial line; two dumps of it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from demo.shown import OUT, machine, step


def main() -> None:
    """Run it all in a temporary folder, and keep the dumps in out/."""
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kdbridge-demo-") as folder:
        link = str(Path(folder, "ttyTARGET"))
        print("# Another process is a machine at a blue screen, at the other end of a serial line")
        with machine("bugcheck", "--on", f"pty:{link}", "--processors", "4", "--memory", "128M"):
            target = f"serial:{link}?baud=115200"
            step("Who is it, and why did it stop?", "info", target)
            step("Its registers", "registers", target)
            for kind in ("kernel", "complete"):
                dump = Path(folder, f"{kind}.dmp")
                snapshot = Path(folder, f"{kind}.snapshot")
                text = f"A {kind} dump"
                step(text, "dump", target, str(dump), "--kind", kind, "--keep-snapshot", str(snapshot))
                step("Page by page, is it what was read?", "verify", str(dump), "--against", str(snapshot))
                shutil.copyfile(dump, OUT / dump.name)
            step("Why did it stop?", "analyze", str(OUT / "kernel.dmp"), "--brief")
            step("The machine stands as it stood", "registers", target, "--processor", "1")
    print("\n# The dumps are in out/. Next:")
    print("#   kdbridge analyze out/kernel.dmp --html out/page.html     all of it, as a page for a browser")
    print("#   kdbridge simulate out/complete.dmp --on tcp:127.0.0.1:5003     puts this crash back on a line")
    print("#   on Windows: windbg -z kernel.dmp, or windbg -k com:ipport=5003,port=ADDRESS")


if __name__ == "__main__":
    main()
