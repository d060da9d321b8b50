"""What the kernel keeps behind each page of a process, counted from /proc/PID/pagemap.

One 64-bit entry a page; its highest byte is all that is needed:

    bit  63       62       61                60 .. 57   56
       | present  swapped  file or shared    ...        mapped only here |
"""

import os

ENTRY_BYTES = 8
READ_BYTES = 1 << 20  # of pagemap: 512 MiB of memory with pages of 4 KiB

OWN, DOUBTFUL, SWAPPED, NONE = b"\1\2\3\0"


def _meaning(top_byte):
    if top_byte & 0x80:
        # Present, but neither of a file nor mapped only here: shared with a forked process, or the zero page.
        return OWN if top_byte & 0x21 else DOUBTFUL
    return SWAPPED if top_byte & 0x40 else NONE


MEANING = bytes(_meaning(top_byte) for top_byte in range(256))


class PageMap:
    """The pagemap of a process. Raises OSError where the kernel does not let the user look."""

    def __init__(self, process):
        self.page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._file = os.open("pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process.directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._file)

    def count(self, pieces):
        """(own, doubtful, swapped) pages of each piece. The pieces follow one another without a gap."""
        counts = [[0, 0, 0] for _ in pieces]
        ends = [piece.end // self.page_bytes for piece in pieces]
        page, last = pieces[0].start // self.page_bytes, ends[-1]
        piece = 0
        while page < last:
            wanted = min(READ_BYTES, (last - page) * ENTRY_BYTES)
            entries = os.pread(self._file, wanted, page * ENTRY_BYTES)
            meanings = entries[ENTRY_BYTES - 1 :: ENTRY_BYTES].translate(MEANING)
            if not meanings:
                break  # the memory is gone
            done = 0
            while done < len(meanings):
                end = min(len(meanings), ends[piece] - page)
                for column, meaning in enumerate((OWN, DOUBTFUL, SWAPPED)):
                    counts[piece][column] += meanings.count(meaning, done, end)
                done = end
                if page + end == ends[piece]:
                    piece += 1
            page += len(meanings)
        return counts
