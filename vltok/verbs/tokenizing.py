"""Pictures through a tokenizer into code shards, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vltok.codes import Codes
from vltok.interfaces import Tokenizer
from vltok.nn.precision import computing
from vltok.pictures.exporting import ExportBatch, ExportLoader
from vltok.pictures.images import ExportSource
from vltok.sequences.export import CodeExport
from vltok.sequences.shards import CodeSample, codes_of
from vltok.sequences.statistics import CodeCounts


def write_codes(
    tokenizer: Tokenizer,
    source: ExportSource,
    export: CodeExport,
    *,
    workers: int,
    device: torch.device | str = "cpu",
    report: Callable[[int], None] | None = None,
) -> None:
    """Write the shards of an export that are left for this process.

    Batches are those of the export's settings, whoever encodes them and whenever.

    Args:
        tokenizer: In evaluation mode, on `device`.
        source: The pictures.
        export: Where their codes go.
        workers: Subprocesses that decode pictures.
        device: Where to compute.
        report: Is told of every so many pictures that are done.

    Raises:
        UserError: The pictures cannot be read, do not suit the tokenizer, or the shards cannot be written. Shards
            that were finished stay.
    """
    spec = tokenizer.spec
    pending = export.pending()
    batch_size = export.settings.batch_size
    batches = iter(ExportLoader(source, [export.pictures(shard) for shard in pending], batch_size, workers))
    with ThreadPoolExecutor(max_workers=1) as writer:  # a shard is written while the next one is encoded
        writing: Future | None = None
        for shard in pending:
            samples, counts, skipped = [], CodeCounts.none(spec), []
            for _ in range(0, len(export.pictures(shard)), batch_size):
                batch = next(batches)
                if batch.images is not None:
                    codes = encode(tokenizer, batch.images.images, export.settings.precision, device)
                    samples += _samples(codes.validate(spec), batch)
                    counts += CodeCounts.of(codes, spec, pixels=batch.images.images[:, 0].numel())
                skipped += batch.skipped
                if report is not None:
                    report(len(batch.places) + len(batch.skipped))
            if writing is not None:
                writing.result()
            writing = writer.submit(export.write, shard, samples, counts, skipped)
        if writing is not None:
            writing.result()


@torch.inference_mode()
def encode(tokenizer: Tokenizer, images: Float[Tensor, "b 3 H W"], precision: str, device: torch.device | str) -> Codes:
    """The codes of images, on the CPU.

    Args:
        tokenizer: In evaluation mode, on `device`.
        images: In [-1, 1].
        precision: What to compute in: see `computing`.
        device: Where to compute.
    """
    with computing(device, precision):
        return tokenizer.encode(images.to(device, non_blocking=True)).to("cpu")


@torch.inference_mode()
def decode(tokenizer: Tokenizer, samples: Sequence[CodeSample], device: torch.device | str) -> Float[Tensor, "b 3 H W"]:
    """The images of samples whose pictures had one size, on `device`, in float32.

    Raises:
        UserError: The samples are no codes of the tokenizer.
    """
    with computing(device):
        return tokenizer.decode(codes_of(samples).validate(tokenizer.spec).to(device))


def _samples(codes: Codes, batch: ExportBatch) -> Iterator[CodeSample]:
    """Each image's codes as a sample. NumPy splits the batch: indexing `Codes` image by image would take longer."""
    keys, labels = batch.images.keys, batch.images.labels
    ids = np.split(codes.ids.numpy(), codes.lengths.cumsum(0)[:-1].numpy())
    for image, place in enumerate(batch.places):
        yield CodeSample(
            index=place,
            key=keys[image],
            ids=ids[image],
            grains=None if codes.grains is None else codes.grains[image].numpy(),
            label=None if labels is None else int(labels[image]),
        )
