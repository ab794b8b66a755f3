"""Symbol files when they are at hand: found by `_NT_SYMBOL_PATH`, proven by GUID and age, read for names and offsets.

`symbol_path` reads what the user said, `pdb_symbols` makes of it somebody who knows names. The network is asked only
where `download` was.
"""

from .naming import PdbSymbols, check_download, pdb_symbols
from .path import SymbolPath, symbol_path
from .store import ImageIdentity

__all__ = ["ImageIdentity", "PdbSymbols", "SymbolPath", "check_download", "pdb_symbols", "symbol_path"]
