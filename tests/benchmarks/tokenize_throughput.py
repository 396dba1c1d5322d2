"""Throughput of `vltok tokenize` against a bare loop over `tokenizer.encode`, on the same images.

    python tests/benchmarks/tokenize_throughput.py [--recipe recipes/imagenet_dq.yaml] [--size 256] [--images 64]

The bare loop has its images decoded in memory; tokenizing reads JPEGs, and writes shards and a manifest.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from PIL import Image
from skimage import data as photographs

from vltok.interfaces import Calibrated, Tokenizer
from vltok.io.recipes import instantiate, parse_tree, recipe_parser
from vltok.pictures.folder import Folder
from vltok.sequences.export import CodeExport
from vltok.sequences.manifest import ExportSettings
from vltok.verbs.coding import encode
from vltok.verbs.inputs import Opened
from vltok.verbs.tokenize import write_codes

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "quickstart.yaml"), help="its tokenizer, untrained")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    tokenizer = build(Path(options.recipe)).eval().to(options.device)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "pictures", options.images, options.size)
        pictures = Folder(
            f"{folder}/pictures", size=options.size, batch_size=options.batch_size, workers=options.workers
        )
        batches = [batch.images for batch in pictures.export_dataloader()]
        for part in tokenizer.modules():
            if isinstance(part, Calibrated):
                part.calibrate([batches[0].to(options.device)])
        encode(tokenizer, batches[0], options.precision, options.device)  # warm up
        start = time.perf_counter()
        for images in batches:
            encode(tokenizer, images, options.precision, options.device)
        bare = time.perf_counter() - start
        with measured(tokenizer) as spent:
            start = time.perf_counter()
            tokenize(tokenizer, pictures, Path(folder) / "codes", options)
            whole = time.perf_counter() - start
        encoding = spent[0]
    print(f"{options.images} images of {options.size}², batches of {options.batch_size}, on {options.device}")
    print(f"bare loop over encode: {options.images / bare:8.2f} images/s")
    print(f"vltok tokenize:        {options.images / whole:8.2f} images/s, {bare / whole:.1%} of the bare loop's speed")
    print(f"forward pass:          {encoding / whole:8.1%} of the time of vltok tokenize")


def build(recipe: Path) -> Tokenizer:
    """The tokenizer of a recipe, with the weights that it starts from."""
    parser = recipe_parser("benchmark")
    parser.add_subclass_arguments(Tokenizer, "tokenizer", required=True)
    config = yaml.safe_load(recipe.read_text())["model"]
    config = config.get("init_args", config)["tokenizer"]
    return instantiate(parser, parse_tree(parser, {"tokenizer": config})).tokenizer


def write_pictures(folder: Path, count: int, size: int) -> None:
    """JPEGs a quarter larger than what is encoded, as crops of real photographs."""
    folder.mkdir()
    sources = [Image.fromarray(photograph()) for photograph in (photographs.astronaut, photographs.coffee)]
    side = size * 5 // 4
    for index in range(count):
        source = sources[index % len(sources)]
        left, top = 7 * index % max(source.width - side, 1), 5 * index % max(source.height - side, 1)
        source.crop((left, top, left + side, top + side)).save(folder / f"{index:06d}.jpg", quality=90)


def tokenize(tokenizer: Tokenizer, pictures: Folder, out: Path, options: argparse.Namespace) -> None:
    """What the verb does between loading the tokenizer and printing."""
    source = pictures.export_source("all")
    settings = ExportSettings(
        tokenizer="0" * 64,
        format="webdataset",
        shard_size=2000,
        batch_size=options.batch_size,
        precision=options.precision,
        pictures=source.pictures,
        input="0" * 64,
    )
    export = CodeExport(out, tokenizer.spec, settings)
    opened = Opened(tokenizer, "benchmark", settings.tokenizer, options.device)
    write_codes(opened, source, export, workers=options.workers, report=lambda count: None)
    export.finish()


@contextmanager
def measured(tokenizer: Tokenizer) -> Iterator[list[float]]:
    """Yield a list of one number: the seconds that `tokenizer.encode` takes within the block."""
    spent = [0.0]
    inner = tokenizer.encode

    def timed(images: torch.Tensor):
        start = time.perf_counter()
        codes = inner(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        spent[0] += time.perf_counter() - start
        return codes

    tokenizer.encode = timed
    try:
        yield spent
    finally:
        del tokenizer.encode


if __name__ == "__main__":
    main()
