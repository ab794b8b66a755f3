"""Symbol files (PDB): which image one belongs to, the names in it, and where a structure's fields lie.

The smallest reader that an analysis needs; `Pdb` is all of it. Nothing here opens a file: it is given a function that
reads bytes at an offset. Facts: LLVM's "The PDB File Format" (llvm.org/docs/PDB) and Microsoft's published cvinfo.h
(github.com/microsoft/microsoft-pdb).
"""

from .msf import ReadFile
from .pdb import Pdb, PdbIdentity

__all__ = ["Pdb", "PdbIdentity", "ReadFile"]
