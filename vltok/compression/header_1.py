"""The header of a `.vlt` file of version 1, which is read, and no longer written.

```
kind, sections          what models the codes, and how many sections there are, in one number
tokenizer               the first 3 bytes of its fingerprint
model                   the first 3 bytes of that of the tables or of the prior; none for equal frequencies
height, width           of the picture before it was padded, in pixels
tile                    the most units along a side of a tile; 0 where the picture is one
rate                    the length of a text, and the text
lengths                 of every section, in bytes
codes                   the CRC-16 of the codes, where a prior models them
```

Numbers are LEB128.
"""

from __future__ import annotations

from vltok.compression.header import CODES_BYTES, EQUAL, KINDS, PRIOR, Header, Reader
from vltok.errors import UserError

_NAME_BYTES = 3
#: A number has no more bytes.
_LONGEST_NUMBER = 5


def read(reader: Reader) -> tuple[Header, list[int]]:
    """A header, and the lengths of the sections.

    Raises:
        UserError: It is cut, or none.
    """
    count, kind = divmod(_read_number(reader), len(KINDS))
    tokenizer = reader.take(_NAME_BYTES)
    model = b"" if kind == EQUAL else reader.take(_NAME_BYTES)
    height, width, tile = (_read_number(reader) for _ in range(3))
    rate = reader.take(_read_number(reader)).decode("utf-8", "replace")
    lengths = [_read_number(reader) for _ in range(count)]
    codes = reader.take(CODES_BYTES) if kind == PRIOR else b""
    return Header(tokenizer, kind, model, height, width, tile, rate, codes), lengths


def _read_number(reader: Reader) -> int:
    value = 0
    for place in range(_LONGEST_NUMBER):
        byte = reader.byte()
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value
    raise UserError("it is damaged: its header is not as it was written")
