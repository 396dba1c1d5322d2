"""Small exports of random codes, written without a tokenizer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from vltok.codes import Codes, CodeSpec
from vltok.sequences.export import CodeExport
from vltok.sequences.manifest import CodeManifest, ExportSettings
from vltok.sequences.shards import CodeSample, by_grid, codes_of
from vltok.sequences.statistics import CodeCounts

SPEC = CodeSpec(codebook_size=300, factors=(8, 16))
REGION_PIXELS = 16 * 16


def random_codes(count: int, spec: CodeSpec = SPEC, grid: tuple[int, int] = (2, 3), seed: int = 0) -> Codes:
    """Codes with labels 0, 1, 2, …, which tell the samples apart."""
    generator = torch.Generator().manual_seed(seed)
    grains = torch.randint(spec.granularities, (count, *grid), generator=generator)
    finest = spec.sides[-1]
    size = (count, grid[0] * finest, grid[1] * finest, *spec.id_shape)
    code_map = torch.randint(spec.codebook_size, size, generator=generator)
    return Codes.from_code_map(code_map, grains, spec, labels=torch.arange(count))


def samples_of(codes: Codes, first: int = 0) -> list[CodeSample]:
    """One sample an image."""
    return [
        CodeSample(
            index=first + index,
            key=f"class/picture {first + index}.jpg",
            ids=image.ids.numpy(),
            grains=None if image.grains is None else image.grains[0].numpy(),
            label=None if image.labels is None else int(image.labels),
            text=None if image.texts is None else image.texts[0] or None,
            embedding=None if image.embeddings is None else image.embeddings[0].numpy(),
        )
        for index, image in enumerate(codes)
    ]


def settings(pictures: int, shard_size: int, **changes) -> ExportSettings:
    """Those of an export by nobody."""
    values = {
        "tokenizer": "0" * 64,
        "format": "webdataset",
        "shard_size": shard_size,
        "batch_size": 4,
        "precision": "float32",
        "pictures": pictures,
        "input": "1" * 64,
    }
    return ExportSettings(**{**values, **changes})


def write_shards(export: CodeExport, codes: Codes, shards: list[int] | None = None, spec: CodeSpec = SPEC) -> None:
    """Write the shards that are left of codes, or some of them."""
    for shard in export.pending() if shards is None else shards:
        pictures = export.pictures(shard)
        part = codes[list(pictures)]
        regions = len(part) if part.grains is None else part.grains.numel()
        counts = CodeCounts.of(part, spec, REGION_PIXELS * regions)
        export.write(shard, samples_of(part, pictures.start), counts)


def export_codes(
    folder: Path, codes: Codes, shard_size: int = 5, spec: CodeSpec = SPEC, classes: int | None = None, **changes
) -> CodeManifest:
    """A whole export of codes, with a class for each unless there are to be more."""
    names = tuple(f"class {index}" for index in range(classes or len(codes)))
    export = CodeExport(folder, spec, settings(len(codes), shard_size, **changes), names)
    write_shards(export, codes, spec=spec)
    manifest = export.finish()
    assert manifest is not None
    return manifest


def mixed_samples(count: int, grids: Sequence[tuple[int, int]]) -> list[CodeSample]:
    """Samples of several grids in turn, with labels 0, 1, 2, …"""
    samples = (samples_of(random_codes(1, grid=grids[index % len(grids)], seed=index), index) for index in range(count))
    return [dataclasses.replace(sample, label=sample.index) for (sample,) in samples]


def export_samples(folder: Path, samples: Sequence[CodeSample], shard_size: int = 5, **changes) -> CodeManifest:
    """A whole export of samples of any grids, with a class for each."""
    names = tuple(f"class {index}" for index in range(len(samples)))
    export = CodeExport(folder, SPEC, settings(len(samples), shard_size, **changes), names)
    for shard in export.pending():
        some = [samples[place] for place in export.pictures(shard)]
        pixels = sum(REGION_PIXELS * sample.grains.size for sample in some)
        parts = [CodeCounts.of(codes_of(alike), SPEC, 0) for alike in by_grid(some)]
        export.write(shard, some, dataclasses.replace(CodeCounts.total(parts, SPEC), pixels=pixels))
    manifest = export.finish()
    assert manifest is not None
    return manifest
