"""How much memory an ELF file describes: from its first loaded byte to the end of its zero-initialised data.

    | PT_LOAD r-- | PT_LOAD r-x | ... | PT_LOAD rw-: bytes of the file | zero-initialised |
    ^ lowest p_vaddr, down to a page                                   highest p_vaddr + p_memsz, up to a page ^
"""

import os
import struct

PT_LOAD = 1
# Where the table of program headers is described, and its entries' type, address and size in memory: by class.
LAYOUTS = {1: ("I", 28, 42, "I4xI8xI"), 2: ("Q", 32, 54, "I12xQ16xQ")}


def image_bytes(path, page_bytes=os.sysconf("SC_PAGE_SIZE")):
    """The bytes of the image of the ELF file at `path`, whole pages; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            header = file.read(64)
            if header[:4] != b"\x7fELF":
                return None
            order = "<" if header[5] == 1 else ">"
            word, table_at, size_at, entry = LAYOUTS[header[4]]
            (table,) = struct.unpack_from(order + word, header, table_at)
            entry_bytes, count = struct.unpack_from(order + "HH", header, size_at)
            file.seek(table)
            headers = file.read(entry_bytes * count)
        loads = [struct.unpack_from(order + entry, headers, i * entry_bytes) for i in range(count)]
    except (OSError, ValueError, struct.error, KeyError, IndexError):  # ValueError: a table beyond any file
        return None
    spans = [(address, address + size) for kind, address, size in loads if kind == PT_LOAD]
    if not spans:
        return None
    first = min(start for start, _ in spans) // page_bytes
    return (-(-max(end for _, end in spans) // page_bytes) - first) * page_bytes
