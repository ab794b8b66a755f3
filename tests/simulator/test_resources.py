"""Version resources, by another program's reading of them."""

from __future__ import annotations

import pefile
import pytest

from simulator.image_files import image_file
from simulator.kernel import KernelOptions, build_kernel


def _strings(data: bytes) -> dict[str, str]:
    with pefile.PE(data=data) as image:
        return {
            key.decode(): value.decode()
            for entry in image.FileInfo[0]
            if entry.Key == b"StringFileInfo"
            for table in entry.StringTable
            for key, value in table.entries.items()
        }


@pytest.mark.slow
def test_pefile_reads_who_made_each_image() -> None:
    kernel = build_kernel(KernelOptions(memory_size=32 << 20))
    made = {}
    for module in kernel.modules:
        name, data = module.file_name, image_file(kernel, module.name)
        strings = _strings(data)
        assert strings["OriginalFilename"].lower() == name.lower()
        with pefile.PE(data=data) as image:
            fixed = image.VS_FIXEDFILEINFO[0]
            parts = (fixed.FileVersionMS >> 16, fixed.FileVersionMS & 0xFFFF, fixed.FileVersionLS >> 16)
            assert strings["FileVersion"].startswith(".".join(map(str, parts)))
        made[name] = strings["CompanyName"]
    assert (made.pop("mydrv.sys"), made.pop("labflt.sys")) == ("Contoso Laboratories", "Fabrikam")
    assert set(made.values()) == {"Microsoft Corporation"}
