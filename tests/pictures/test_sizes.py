"""Pictures of any shape, cropped to the nearest of several sizes, in batches of one size and of as many pixels."""

import itertools
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as skimage_data

from vltok.errors import UserError
from vltok.loading.skipping import Skipped
from vltok.pictures import batches, shards
from vltok.pictures.batches import SizedPlaces
from vltok.pictures.decoding import decode, shape_of
from vltok.pictures.folder import Folder
from vltok.pictures.images import ImageBatch, ImageData
from vltok.pictures.photos import Photos
from vltok.pictures.shards import WebDataset
from vltok.pictures.sizes import Sizes
from vltok.pictures.transforms import CentreCrop, RandomCrop, ScaledCrop
from vltok.verbs.pack import pack

SIZES = [(32, 32), (24, 40), (40, 24)]
#: Heights and widths: squares, wide and high ones, each a little off.
SHAPES = [(60, 62), (44, 80), (90, 50), (61, 60), (52, 81), (90, 40)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of six shapes, of which one is no picture."""
    root = tmp_path_factory.mktemp("pictures")
    photograph = skimage_data.chelsea()
    for index in range(30):
        height, width = SHAPES[index % 6]
        picture = np.roll(photograph, 29 * index, axis=1)[100 : 100 + height, 100 : 100 + width]
        Image.fromarray(picture).save(root / f"{index:02d}.jpg", quality=92)
        (root / f"{index:02d}.txt").write_text(f"picture {index}")
    (root / "07.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def packed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    pack(root, folder / "%03d.tar", count=10, texts="txt", max_corrupt=1.0)
    return str(folder / "*.tar")


@pytest.fixture(params=["folder", "webdataset", "photos"])
def build(request: pytest.FixtureRequest) -> Callable[..., ImageData]:
    def make(**changes: object) -> ImageData:
        given = {"size": SIZES, "batch_size": 3, "workers": 0} | changes
        if request.param == "photos":
            return Photos(**given, train_crops=90, val_crops=24)
        common = {"val_share": 0.4, "texts": "txt", "max_corrupt": 1.0} | given
        if request.param == "folder":
            return Folder(str(request.getfixturevalue("root")), **common)
        return WebDataset(request.getfixturevalue("packed"), shuffle_buffer=4, **common)

    return make


def size_of(batch: ImageBatch) -> tuple[int, int]:
    return tuple(batch.images.shape[2:])


def wanted(text: str) -> tuple[int, int]:
    """The size of a picture, by the number in its text."""
    return SIZES[int(text.removeprefix("picture ")) % 3]


LOADERS = ["train_dataloader", "val_dataloader", "training_crops_dataloader", "export_dataloader"]


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("name", LOADERS)
def test_batches_have_one_size_and_as_many_pixels(build: Callable[..., ImageData], name: str) -> None:
    data = build()
    assert data.sizes == tuple(SIZES) and Sizes.of(SIZES, 3).batch_sizes == (3, 3, 3)
    found = list(getattr(data, name)())
    photographs = isinstance(data, Photos) and name == "export_dataloader"  # none is upright
    assert {size_of(batch) for batch in found} == set(SIZES[:2] if photographs else SIZES)
    replaced = 0
    for batch in found:
        assert len(batch) == 3 if name == "train_dataloader" else 1 <= len(batch) <= 3
        replaced += sum(wanted(text) != size_of(batch) for text in batch.texts or ())
    # in the place of a corrupt one, another one is cropped to the size of the batch
    assert replaced <= (name in ("train_dataloader", "training_crops_dataloader"))


@pytest.mark.filterwarnings("ignore:skipped")
def test_no_picture_is_left_out_or_squeezed(root: Path) -> None:
    data = Folder(str(root), size=SIZES, batch_size=4, workers=0, max_corrupt=1.0, val_share=0.3, texts="txt")
    loaders = data.val_dataloader(), data.training_crops_dataloader(), data.export_dataloader()
    held_out, training, every = ([key for batch in loader for key in batch.keys] for loader in loaders)
    readable = [f"{index:02d}.jpg" for index in range(30) if index != 7]
    assert sorted({*held_out, *training}) == sorted(every) == readable and data.skipped == ["07.jpg"]
    assert not set(held_out) & set(training) and len(set(held_out)) == len(held_out)
    samples = list(data.export_source("all").read(range(30)))
    assert [sample.key for sample in samples] == [f"{index:02d}.jpg" for index in range(30)]
    for index, sample in enumerate(samples):
        if isinstance(sample, Skipped):
            continue
        assert tuple(sample.pixels.shape[1:]) == wanted(sample.text)
        original = Image.open(root / sample.key).convert("RGB")
        height, width = sample.pixels.shape[1:]
        scale = max(height / original.height, width / original.width)
        covered = original.resize((round(original.width * scale), round(original.height * scale)), Image.BICUBIC)
        left, top = (covered.width - width) // 2, (covered.height - height) // 2
        expected = np.asarray(covered.crop((left, top, left + width, top + height)), np.float32)
        assert np.abs(sample.pixels.permute(1, 2, 0).float().numpy() - expected).mean() < 8, index


@pytest.mark.filterwarnings("ignore:skipped", "ignore:This DataLoader will create")
@pytest.mark.parametrize("name", LOADERS)
def test_no_crop_depends_on_the_workers(build: Callable[..., ImageData], name: str) -> None:
    alone, helped = build(), build(workers=2)
    if isinstance(alone, WebDataset) and name == "train_dataloader":
        pytest.skip("the order of shards depends on who reads them")
    pairs = zip(getattr(alone, name)(), getattr(helped, name)(), strict=True)
    assert all(torch.equal(one.images, other.images) and one.keys == other.keys for one, other in pairs)


@pytest.mark.filterwarnings("ignore:skipped", "ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_in_the_middle_of_an_epoch(build: Callable[..., ImageData], workers: int) -> None:
    def described(loader: Iterable[ImageBatch]) -> list[tuple]:
        return [(batch.keys, batch.images.sum().item()) for batch in loader]

    whole = build(workers=workers).train_dataloader()
    epochs = described(whole), described(whole)
    assert len(epochs[0]) == len(whole) and epochs[0] != epochs[1]
    begun = build(workers=workers).train_dataloader()
    first = described(itertools.islice(begun, 2))
    resumed = build(workers=workers).train_dataloader()
    resumed.load_state_dict(begun.state_dict())
    assert (first + described(resumed), described(resumed)) == epochs


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_get_as_many_batches_each(
    build: Callable[..., ImageData], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, held_out = [], []
    for rank in range(processes):
        for module in (batches, shards):
            monkeypatch.setattr(module, "world", lambda rank=rank: (rank, processes))
        data = build()
        trained.append([batch.keys for batch in data.train_dataloader()])
        assert len(trained[-1]) == len(data.train_dataloader()) > 0
        held_out.append([batch.keys for batch in data.val_dataloader()])
    assert len({len(each) for each in trained}) == len({len(each) for each in held_out}) == 1
    seen = [key for each in trained for batch in each for key in batch]
    if not isinstance(data, WebDataset):
        assert len(seen) == len(set(seen)) or "07.jpg" in data.skipped
    keys = {key for each in held_out for batch in each for key in batch}
    with monkeypatch.context() as patch:
        for module in (batches, shards):
            patch.setattr(module, "world", lambda: (0, 1))
        assert keys == {key for batch in build().val_dataloader() for key in batch.keys}


def test_each_picture_goes_to_the_nearest_shape() -> None:
    sizes = Sizes.of([(64, 64), (48, 80), (80, 48), (128, 128)], 8)
    shapes = [(100, 101), (200, 190), (30, 20), (400, 500), (50, 90), (64, 64), (10, 10), (128, 500)]
    nearest = sizes.nearest(np.array(shapes))
    assert [sizes.sizes[number] for number in nearest] == [
        (64, 64), (128, 128), (80, 48), (128, 128), (48, 80), (64, 64), (64, 64), (48, 80),
    ]  # fmt: skip
    assert sizes.batch_sizes == (8, 8, 8, 2)
    assert Sizes.of([(8, 8), (64, 64)], 2).batch_sizes == (2, 1)


def test_sizes_that_no_batch_would_fill_are_left_out_of_training() -> None:
    sizes = Sizes.of([(64, 64), (48, 80), (80, 48)], 4)
    shapes = np.array([(64, 64)] * 9 + [(48, 80)] * 5 + [(80, 48)] * 3)
    assert np.bincount(sizes.nearest(shapes)).tolist() == [9, 5, 3]
    assert np.bincount(sizes.nearest(shapes, filling=True)).tolist() == [12, 5]
    assert np.bincount(sizes.nearest(shapes[-2:], filling=True), minlength=3).sum() == 2


@pytest.mark.parametrize("size", [(40, 24), (24, 40), (32, 32)])
@pytest.mark.parametrize("picture", [(96, 72), (40, 300), (24, 40), (1, 9)])
def test_crops_have_the_size_and_keep_the_aspect_ratio(size: tuple[int, int], picture: tuple[int, int]) -> None:
    width, height = picture
    x, y = np.meshgrid(np.arange(width) * 2.0, np.arange(height) * 2.0)
    image = Image.fromarray(np.stack([x % 256, y % 256, 0 * x], axis=-1).astype(np.uint8))
    for crop in (CentreCrop(size), RandomCrop(size), ScaledCrop(size, (1.0, 4.0))):
        assert crop(image, random.Random(0)).size == (size[1], size[0])
    if (height, width) == size:
        assert CentreCrop(size)(image, random.Random(0)).tobytes() == image.tobytes()


def test_headers_tell_the_shape_that_is_shown(tmp_path: Path, root: Path) -> None:
    image = Image.fromarray(skimage_data.chelsea()[:30, :50])
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending in ("jpg", "png", "webp", "tif"):
        image.save(tmp_path / f"a.{ending}", exif=exif)
        path = tmp_path / f"a.{ending}"
        assert shape_of(path) == shape_of(path.read_bytes()) == decode(path).size[::-1], ending
    assert shape_of(tmp_path / "a.jpg") == (50, 30)
    assert shape_of(root / "07.jpg") is None and shape_of(tmp_path) is None and shape_of(b"") is None
    assert shape_of(root / "00.jpg") == (60, 62)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, r"data\.size must be at least 1, not 0"),
        ([], r"data\.size must be the side of a square, or sizes of a height and a width .*, not \[\]"),
        ([(64, 0)], r"such as \[\[64, 64\], \[48, 80\]\], not \[\[64, 0\]\]"),
        ([64, 48], r"not \[\[64\], \[48\]\]"),
        ([(64, 64), (48, 80), (64, 64)], "data.size names 64 × 64 twice: name it once"),
        ([(64.5, 64)], "a side in data.size must be a whole number, not 64.5"),
        ([(True, 64)], "a side in data.size must be a whole number, not True"),
        (["64x80"], r"sizes of a height and a width .* not \['64x80'\]"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_sizes_that_are_none(size: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Photos(size=size)


def test_a_folder_says_which_sizes_it_leaves_out_of_training(tmp_path: Path) -> None:
    for index in range(12):
        height, width = (60, 64) if index else (40, 160)
        picture = np.roll(skimage_data.chelsea(), 29 * index, axis=1)[100 : 100 + height, 100 : 100 + width]
        Image.fromarray(picture).save(tmp_path / f"{index:02d}.png")
    data = Folder(str(tmp_path), size=[(32, 32), (16, 64)], batch_size=4, workers=0, val_share=0.1)
    with pytest.warns(UserWarning, match="1 training picture of data.root .* nearest to 16 × 64 would not fill"):
        found = list(data.train_dataloader())
    assert {size_of(batch) for batch in found} == {(32, 32)}
    assert (16, 64) in {size_of(batch) for batch in data.export_dataloader()}


def test_too_few_crops_of_a_size_are_one_clear_error(root: Path) -> None:
    with pytest.raises(UserError, match=r"data\.size 24 × 40 has 15 training crops, but a batch has 21: leave it"):
        Photos(size=SIZES, batch_size=20, train_crops=50).train_dataloader()
    with pytest.raises(UserError, match=r"data\.size 32 × 32 has \d+ training crops, but a batch has 40"):
        Folder(str(root), size=SIZES, batch_size=40, workers=0).train_dataloader()


def test_several_processes_need_as_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "world", lambda: (0, 4))
    numbers = np.array([0] * 4 + [1] * 5)
    with pytest.raises(UserError, match="makes 2 batches of the 9 training crops, fewer than there are processes"):
        SizedPlaces(numbers, Sizes.of(SIZES[:2], 4), split="drop")
    places = SizedPlaces(np.array([0, 1, 1]), Sizes.of(SIZES[:2], 4), split="pad")
    assert len(places) == 1 and len(list(places)) == 1
