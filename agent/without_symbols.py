"""Cuts debug symbols off compiled modules, a sixth of all the packages: `python without_symbols.py FOLDER`.

Packages are published with them, for debuggers; the loader reads nothing behind the last segment of a file, and no
section header. Runs while the agent's image is built, where binutils, which would do the same, would first have to be
downloaded.

Source: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html
"""

import struct
import sys
from pathlib import Path

ELF_OF_64_BITS = b"\x7fELF\x02\x01"
SEGMENTS = struct.Struct("<32xQ14xHH")
"""Of the file's header: where the headers of segments begin, the length of each, how many there are."""
SEGMENT = struct.Struct("<8xQ16xQ")
"""Of a segment's header: where it begins in the file, how long it is there."""
SECTIONS = ((40, 8), (60, 2), (62, 2))
"""Offset and length of what a file's header says of its sections: where, how many, the one with their names."""


def cut(file: Path) -> int:
    """Shorten a file, if it is one for a 64-bit Linux; gives how many bytes that saved."""
    content = file.read_bytes()
    if not content.startswith(ELF_OF_64_BITS):
        return 0
    first, length, count = SEGMENTS.unpack_from(content)
    segments = [SEGMENT.unpack_from(content, first + number * length) for number in range(count)]
    end = max(first + count * length, *(begin + size for begin, size in segments))
    kept = bytearray(content[:end])
    for offset, size in SECTIONS:
        kept[offset : offset + size] = bytes(size)
    file.write_bytes(kept)
    return len(content) - len(kept)


def main() -> None:
    """Shorten all compiled modules below a folder."""
    saved = sum(cut(file) for file in Path(sys.argv[1]).rglob("*.so*") if not file.is_symlink())
    print(f"debug symbols left out: {saved / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
