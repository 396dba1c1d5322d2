"""Pictures as the bytes of files; see tests/verbs/test_compress.py for whole pictures."""

import pytest
import torch

from tests.verbs.test_compress import PHOTOGRAPH, Tail
from vltok.codes import Codes, CodeSpec
from vltok.compression.coders import DecodedTile
from vltok.compression.file_format import pack, unpack
from vltok.compression.header import Header
from vltok.compression.pictures import PictureCoder, filled, smoothed
from vltok.compression.table_coder import TableCoder
from vltok.errors import UserError


def test_regions_that_are_not_known_look_like_the_nearest_one() -> None:
    spec = CodeSpec(90, (8, 4))
    # fine, unknown, unknown, coarse; in the second row unknown, coarse, unknown, unknown
    grains = torch.tensor([[[1, 0, 0, 0], [0, 0, 0, 0]]])
    ids = torch.tensor([0, 0, 33, 0, 44, 0, 0, 11, 12, 13, 14])
    known = torch.tensor([[True, False, False, True], [False, True, False, False]])
    codes = filled(DecodedTile(Codes(ids, torch.tensor([11]), grains), known), spec)
    assert codes.ids[[2, 4]].tolist() == [33, 44], "what is known stays"
    assert codes.ids[[1, 6]].tolist() == [33, 33] and codes.ids[3] == 11 and codes.ids[5] == 44
    assert codes.ids[7:].tolist() == [11, 12, 13, 14] and torch.equal(codes.grains, grains)


def test_colours_pass_smoothly_over_what_is_not_known() -> None:
    image = torch.rand(3, 13, 40)
    known = torch.zeros(13, 40, dtype=torch.bool)
    known[:, :8] = known[:, -8:] = True
    image[:, :, :8], image[:, :, -8:] = -1, 1
    found = smoothed(image, known)
    assert torch.equal(found[:, known], image[:, known])
    row = found[0, 6]
    assert (row.diff() >= -1e-6).all() and -0.9 < row[14] < row[25] < 0.9
    assert torch.equal(smoothed(image, known), found) and not smoothed(image, torch.zeros_like(known)).any()


def test_a_size_that_no_picture_has_costs_no_memory() -> None:
    coder = PictureCoder(Tail(), "00" * 32, "cpu")
    file = unpack(pack(Header(bytes(2), 0, b"", 2**31, 2**31), [b""]))
    with pytest.raises(UserError, match="pixels, more than"):
        coder.decode(file, TableCoder(None, Tail.spec), 1)


def test_a_prior_of_another_size_than_the_tokenizer_takes_is_refused() -> None:
    coder = PictureCoder(Tail(), "00" * 32, "cpu", size=(16, 16))
    with pytest.raises(UserError, match="which the tokenizer does not take"):
        coder.compress(torch.from_numpy(PHOTOGRAPH.copy()).movedim(2, 0), TableCoder(None, Tail.spec), 64)
