"""`vltok.compress` and `vltok.decompress` as a notebook calls them."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor, nn

import vltok.compression.prior_coder
from tests.cli.exports import PRIOR, write_bundle, write_prior
from vltok.codes import Codes, CodeSpec
from vltok.compression.file_format import unpack
from vltok.compression.tables import CodeTables
from vltok.errors import UserError
from vltok.interfaces import FixedSize, Tokenizer, TokenizerOutput
from vltok.io.bundles import fingerprint, load_prior, load_tokenizer
from vltok.testing.outcomes import random_codes
from vltok.verbs.compress import CompressedPicture, compress
from vltok.verbs.decompress import decompress
from vltok.verbs.reconstruct import reconstruct

PHOTOGRAPH = skimage.data.coffee()[100:161, 200:283]  # 83 × 61


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of codes at factors 4 and 8, with tables."""
    folder = tmp_path_factory.mktemp("compress") / "bundle"
    spec = write_bundle(folder).spec
    CodeTables.measure([random_codes(spec, 20)], spec).save(folder)
    return folder


@pytest.mark.parametrize("tile", [1024, 32])
def test_pictures_come_back_as_reconstruct_gives_them(bundle: Path, tile: int) -> None:
    pictures = [PHOTOGRAPH, PHOTOGRAPH[:1, :1], PHOTOGRAPH[:64, :8]]
    found = compress(bundle, pictures, tile=tile, device="cpu")
    assert not found.failed and [each.name for each in found.pictures] == ["picture-0", "picture-1", "picture-2"]
    back = decompress(bundle, [each.data for each in found.pictures], device="cpu")
    expected = reconstruct(bundle, pictures, tile=tile, device="cpu").pictures
    for file, picture, whole in zip(found.pictures, back.pictures, expected, strict=True):
        assert np.array_equal(picture.pixels, whole.pixels)
        assert file.code_length == whole.figures.code_length
        assert file.size == len(file.data) and file.bits_per_pixel == 8 * file.size / whole.pixels[..., 0].size
        assert (picture.sections, picture.of, picture.growing) == (2, 2, ())


def test_tiles_are_one_file_whose_beginning_is_the_coarse_picture(bundle: Path) -> None:
    (file,) = compress(bundle, PHOTOGRAPH, tile=32, device="cpu").pictures
    ends = unpack(file.data).ends
    (whole,) = decompress(bundle, file.data, progressive=True, device="cpu").pictures
    (part,) = decompress(bundle, file.data[: ends[0]], progressive=True, device="cpu").pictures
    assert (part.sections, part.of) == (1, 2)
    (coarse,) = whole.growing
    assert np.array_equal(part.pixels, coarse) and part.growing == ()
    assert coarse.shape == PHOTOGRAPH.shape and not np.array_equal(coarse, whole.pixels)


def test_to_show_a_file_growing_asks_for_no_tables(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_bundle(tmp_path / "bundle")
    (file,) = compress(tmp_path / "bundle", PHOTOGRAPH, device="cpu").pictures
    assert "does not say how often its codes occur" in caplog.text
    caplog.clear()
    decompress(tmp_path / "bundle", file.data, progressive=True, device="cpu")
    assert not caplog.records


def test_every_prefix_is_the_coarse_picture_or_one_line(bundle: Path) -> None:
    (file,) = compress(bundle, PHOTOGRAPH, device="cpu").pictures
    coarsest = unpack(file.data).ends[0]
    prefixes = [file.data[:size] for size in range(0, file.size, 7)]
    found = decompress(bundle, prefixes, progressive=True, device="cpu")
    assert len(found.pictures) == sum(len(prefix) >= coarsest for prefix in prefixes) > 3
    assert len(found.failed) == len(prefixes) - len(found.pictures)
    assert all("cut" in reason or "no .vlt file" in reason for reason in found.failed.values())
    refused = decompress(bundle, prefixes, device="cpu")
    assert not refused.pictures and "--progressive shows" in list(refused.failed.values())[-1]


def test_files_of_another_bundle_or_other_tables_are_told(bundle: Path, tmp_path: Path) -> None:
    (file,) = compress(bundle, PHOTOGRAPH, device="cpu").pictures
    write_bundle(tmp_path / "other", seed=1)
    (reason,) = decompress(tmp_path / "other", file.data, device="cpu").failed.values()
    assert "it is of another tokenizer" in reason and "other" in reason
    write_bundle(tmp_path / "same")
    (reason,) = decompress(tmp_path / "same", file.data, device="cpu").failed.values()
    assert "it was compressed with tables" in reason
    tables = CodeTables.stored(bundle, load_tokenizer(bundle).spec)[-1]
    assert not decompress(tmp_path / "same", file.data, tables=tables, device="cpu").failed


def test_files_stay_readable_when_tables_are_measured_anew(tmp_path: Path) -> None:
    spec = write_bundle(tmp_path / "bundle").spec
    files = [compress(tmp_path / "bundle", PHOTOGRAPH, device="cpu").pictures[0].data]
    for seed in (0, 1):
        CodeTables.measure([random_codes(spec, 20, seed)], spec).save(tmp_path / "bundle")
        files.append(compress(tmp_path / "bundle", PHOTOGRAPH, device="cpu").pictures[0].data)
    assert len(set(files)) == 3
    found = decompress(tmp_path / "bundle", files, device="cpu").pictures
    assert all(np.array_equal(each.pixels, found[0].pixels) for each in found)


def test_a_prior_codes_tiles_of_the_size_of_its_images(bundle: Path, tmp_path: Path) -> None:
    write_prior(tmp_path / "prior", PRIOR, fingerprint(bundle))
    options = {"prior": tmp_path / "prior", "device": "cpu"}
    picture = PHOTOGRAPH[:32, :48]  # six tiles
    (file,) = compress(bundle, picture, tmp_path / "files", **options).pictures
    path = tmp_path / "files" / "picture-0.vlt"
    (back,) = decompress(bundle, path, progressive=True, **options).pictures
    expected = reconstruct(bundle, picture, tile=16, device="cpu").pictures[0]
    assert np.array_equal(back.pixels, expected.pixels) and file.code_length == expected.figures.code_length
    assert back.of == 2 and len(back.growing) == 1
    (part,) = decompress(bundle, path.read_bytes()[:-1], progressive=True, **options).pictures
    assert np.array_equal(part.pixels, back.growing[0])
    # whoever reads it without the prior, or with another, is told which one it takes
    (reason,) = decompress(bundle, path, device="cpu").failed.values()
    assert "a prior models its codes" in reason and reason.endswith("give that one as --prior")
    (reason,) = decompress(bundle, path, prior=_of_other_weights(tmp_path, bundle), device="cpu").failed.values()
    assert "another one is given" in reason


def _of_other_weights(folder: Path, bundle: Path) -> Path:
    prior = load_prior(folder / "prior")
    next(prior.parameters()).data.add_(1)
    prior.save_pretrained(folder / "other", bundle)
    return folder / "other"


def test_other_probabilities_are_noticed(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prior(tmp_path / "prior", PRIOR, fingerprint(bundle))
    options = {"prior": tmp_path / "prior", "device": "cpu"}
    (file,) = compress(bundle, PHOTOGRAPH, **options).pictures
    # as on a machine whose arithmetic is another one
    real = vltok.compression.prior_coder.likely
    monkeypatch.setattr("vltok.compression.prior_coder.likely", lambda logits: real(1.01 * logits))
    (reason,) = decompress(bundle, file.data, **options).failed.values()
    assert "the prior gives other probabilities here" in reason or "its codes are damaged" in reason


def test_pictures_get_the_rate_that_is_asked_for(bundle: Path) -> None:
    for rate, tile in (("codes=151", 1024), ("max-codes=170", 32)):
        (file,) = compress(bundle, PHOTOGRAPH, rate=rate, tile=tile, device="cpu").pictures
        assert unpack(file.data).header.rate == rate
        expected = reconstruct(bundle, PHOTOGRAPH, rate=rate, tile=tile, device="cpu").pictures[0]
        assert file.code_length == expected.figures.code_length <= int(rate.split("=")[1])
        assert np.array_equal(decompress(bundle, file.data, device="cpu").pictures[0].pixels, expected.pixels)
    found = compress(bundle, PHOTOGRAPH, rate="codes=1", device="cpu")
    assert not found.pictures and "codes=1 is too low" in next(iter(found.failed.values()))


def test_without_tables_a_line_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = write_bundle(tmp_path / "bundle")
    compress(tmp_path / "bundle", PHOTOGRAPH, device="cpu")
    assert caplog.text.count("'vltok rate'") == 1
    (file,) = compress(tokenizer, PHOTOGRAPH).pictures
    assert np.array_equal(
        decompress(tokenizer, file.data).pictures[0].pixels, reconstruct(tokenizer, PHOTOGRAPH).pictures[0].pixels
    )


class Tail(Tokenizer, FixedSize):
    """Codes on no grid: as many as the picture is bright, each of which makes all brighter."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    spec = CodeSpec(11, max_length=8)
    divisor = 4
    image_size = (8, 12)

    def encode_batch(self, images: Tensor) -> Codes:
        assert tuple(images.shape[2:]) == self.image_size
        lengths = ((images.mean((1, 2, 3)) + 1) * 4).long().clamp(1, 8)
        return Codes(torch.arange(int(lengths.sum())) % 11, lengths)

    def decode_batch(self, codes: Codes) -> Tensor:
        return (codes.lengths / 4 - 1).view(-1, 1, 1, 1).expand(-1, 3, *self.image_size) * self.one

    def forward(self, images: Tensor) -> TokenizerOutput:
        raise NotImplementedError


def test_codes_on_no_grid(tmp_path: Path) -> None:
    tokenizer = Tail()
    tables = CodeTables.measure([random_codes(tokenizer.spec, 30)], tokenizer.spec)
    (file,) = compress(tokenizer, PHOTOGRAPH, tables=tables).pictures
    (back,) = decompress(tokenizer, file.data, tables=tables, progressive=True).pictures
    assert np.array_equal(back.pixels, reconstruct(tokenizer, PHOTOGRAPH).pictures[0].pixels)
    assert back.of == 1 and back.growing == ()


def test_files_are_written_and_one_that_fails_harms_no_other(bundle: Path, tmp_path: Path) -> None:
    for name in ("one/cat.png", "two/cat.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(PHOTOGRAPH).save(tmp_path / name)
    (tmp_path / "two" / "broken.png").write_bytes(b"no picture")
    found = compress(bundle, tmp_path, tmp_path / "files", device="cpu")
    assert list(found.failed) == [str(tmp_path / "two" / "broken.png")]
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["cat-2.vlt", "cat.vlt"]
    assert all(each.data is None and each.size > 100 for each in found.pictures)
    (tmp_path / "files" / "more").mkdir()
    (tmp_path / "files" / "more" / "cat.vlt").write_bytes(b"VLT\1")
    back = decompress(bundle, tmp_path / "files", tmp_path / "out", progressive=True, device="cpu")
    assert list(back.failed) == [str(tmp_path / "files" / "more" / "cat.vlt")]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["cat-2.1.png", "cat-2.png", "cat.1.png", "cat.png"]
    with pytest.raises(UserError, match=r"holds no file that ends in \.vlt"):
        decompress(bundle, tmp_path / "one", device="cpu")


def test_whoever_stops_it_keeps_whole_files(bundle: Path, tmp_path: Path) -> None:
    def stop(done: CompressedPicture) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(bundle, [PHOTOGRAPH, PHOTOGRAPH], tmp_path / "files", device="cpu", progress=stop)
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["picture-0.vlt"]
    assert not decompress(bundle, tmp_path / "files", device="cpu").failed
