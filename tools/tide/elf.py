"""The little that tide needs to know of an ELF file: what it is for, and whether the dynamic linker starts it.

The layout is that of elf(5):

    offset   0     4      5               18         32 / 28   54 / 42      56 / 44
           | magic class  byte order ...  e_machine  e_phoff   e_phentsize  e_phnum     (64-bit / 32-bit)
"""

import struct
from collections import namedtuple

PT_INTERP = 3

# has_interpreter: it names a dynamic linker, so LD_PRELOAD is heard. Not a dataclass, which would take a third of the
# time that `tide run` needs to start.
ElfFile = namedtuple("ElfFile", "bits machine has_interpreter")


def read(path):
    """Return the ElfFile of `path`, or None if it is not an ELF file or not readable."""
    try:
        with open(path, "rb") as file:
            header = file.read(64)
            if len(header) < 52 or header[:4] != b"\x7fELF":
                return None
            bits = 64 if header[4] == 2 else 32
            order = "<" if header[5] == 1 else ">"
            (machine,) = struct.unpack_from(order + "H", header, 18)
            if bits == 64:
                (table,) = struct.unpack_from(order + "Q", header, 32)
                entry_size, count = struct.unpack_from(order + "HH", header, 54)
            else:
                (table,) = struct.unpack_from(order + "I", header, 28)
                entry_size, count = struct.unpack_from(order + "HH", header, 42)
            file.seek(table)
            entries = file.read(entry_size * count)
            types = (struct.unpack_from(order + "I", entries, i * entry_size)[0] for i in range(count))
            return ElfFile(bits, machine, PT_INTERP in types)
    except (OSError, ValueError, struct.error):  # ValueError: a table beyond what a file can have
        return None


def script_interpreter(path):
    """Return the program that the `#!` line of `path` names, or None."""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return None
    words = line[2:].split() if line.startswith(b"#!") else []
    return words[0] if words else None
