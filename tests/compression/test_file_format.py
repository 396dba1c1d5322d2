"""The bytes of a file: what they say, and that nothing changes or is missing unnoticed."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vltok.compression.file_format import file_size, pack, unpack
from vltok.compression.header import EQUAL, PRIOR, TABLES, Header
from vltok.errors import UserError

HEADER = Header(b"ab", TABLES, b"de", 64, 300, 3, "codes=400")
SECTIONS = [b"first", b"", b"the last one"]

RATES = ["", "codes=400", "max-codes=1", "psnr=24.5", "threshold=-1e-05", "ratios=8:0.5,16:0.5", "bpp=2,measured"]

headers = st.builds(
    Header,
    tokenizer=st.binary(min_size=2, max_size=2),
    kind=st.sampled_from([EQUAL, TABLES, PRIOR]),
    model=st.binary(min_size=2, max_size=2),
    height=st.sampled_from([1, 64, 191, 192, 16_319, 16_320, 2**31]),
    width=st.integers(1, 2**31) | st.just(64),
    tile=st.integers(0, 2**20),
    rate=st.sampled_from(RATES) | st.text(max_size=20),
    codes=st.binary(min_size=2, max_size=2),
).map(
    lambda header: dataclasses.replace(
        header,
        model=header.model if header.kind != EQUAL else b"",
        codes=header.codes if header.kind == PRIOR else b"",
    )
)


@given(headers, st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_a_file_says_what_was_written(header: Header, sections: list[bytes]) -> None:
    data = pack(header, sections)
    file = unpack(data)
    assert (file.header, list(file.sections)) == (header, sections)
    assert file.size == file.ends[-1] == len(data) == file_size(header, sections)
    assert not file.cut


@pytest.mark.parametrize(("rate", "size"), [("", 14), ("codes=160", 17), ("psnr=24", 17), ("mean-codes=120.5", 18)])
def test_the_header_is_small(rate: str, size: int) -> None:
    """That of a picture of 64 × 64 pixels, at about 160 codes of 9 bits."""
    header = Header(b"ab", TABLES, b"de", 64, 64, rate=rate)
    assert file_size(header, [bytes(44), bytes(140)]) - 184 == size


def test_a_change_of_any_byte_is_noticed() -> None:
    data = pack(HEADER, SECTIONS)
    for place in range(len(data)):
        for change in range(1, 256):
            changed = bytearray(data)
            changed[place] ^= change
            with pytest.raises(UserError):
                file = unpack(bytes(changed))
                assert not file.cut, "a header that was changed is no header of a file that was cut"
    with pytest.raises(UserError, match="something follows"):
        unpack(data + b"\0")


def test_the_beginning_of_a_file_has_the_first_sections() -> None:
    data = pack(HEADER, SECTIONS)
    ends = unpack(data).ends
    start = ends[0] - len(SECTIONS[0])
    for size in range(len(data)):
        if size < start:
            with pytest.raises(UserError, match=r"no \.vlt file" if size < 2 else "cut within its header"):
                unpack(data[:size])
            continue
        file = unpack(data[:size])
        assert file.cut and file.header == HEADER and file.ends == ends
        assert list(file.sections) == SECTIONS[: sum(end <= size for end in ends)]


@given(st.binary(max_size=60))
def test_other_bytes_are_no_file(data: bytes) -> None:
    for start in (b"", b"V", b"V\x82", b"VLT", b"VLT\1"):
        with pytest.raises(UserError):
            unpack(start + data)


@pytest.mark.parametrize("start", [b"VLT\7", b"V\x87"])
def test_another_version_is_named(start: bytes) -> None:
    with pytest.raises(UserError, match="version 7 of the format, and this vltok reads versions up to 2"):
        unpack(start + bytes(40))
