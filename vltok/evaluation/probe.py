"""How hard codes are to predict: the bits of a small prior that every tokenizer gets, trained for a fixed budget.

A tokenizer that reconstructs better may have codes that are harder to predict, and what a generator makes of them
depends on both. The probe's architecture, pictures, steps and seed depend on no tokenizer, so that its bits an image
compare between tokenizers of other codebooks and lengths. They say how soon codes are learned, not how few bits they
take in the end.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vltok.code_maps import for_each_id
from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.evaluation.gathering import Items, Seen
from vltok.evaluation.measurement import pixel_digests
from vltok.evaluation.values import Value
from vltok.measures.likelihood import likelihood_sums, total_sums
from vltok.measures.pixels import to_bytes
from vltok.nn.precision import computing
from vltok.nn.transformer import Transformer
from vltok.pictures.exporting import export_batches
from vltok.pictures.images import ExportSource, ImageBatch
from vltok.priors.raster_scan import RasterScan

#: Gives the codes of images in [-1, 1], on their device.
Encode = Callable[[Float[Tensor, "b 3 H W"]], Codes]
#: The most training pictures that are read.
PICTURES = 2048
_WIDTH, _HEADS, _POSITION_LAYERS, _CONTENT_LAYERS = 128, 4, 1, 2
_STEPS, _BATCH, _LEARNING_RATE, _WARMUP, _SEED = 200, 16, 3e-3, 0.1, 0


class Probe:
    """A small raster-scan prior over a tokenizer's codes.

    Codes on no grid are laid on a row as long as the longest sequence, whose rest is filled with an end. Where pictures
    have several sizes, it is a prior of any grid, and each step has pictures of one.

    Args:
        encode: Gives the codes.
        spec: What the codes may be.
        device: Where to compute.

    Raises:
        UserError: The codes lie on no grid, and it is not known how many an image may have.
    """

    def __init__(self, encode: Encode, spec: CodeSpec, device: torch.device | str) -> None:
        self._encode, self._device = encode, device
        self._row = None
        if not spec.gridded:
            self._row = CodeSpec(spec.codebook_size + 1, (1,), (1, spec.longest_length), codebooks=spec.codebooks)
        self._spec = self._row or spec

    def train(
        self, source: ExportSource, batch_size: int, workers: int, report: Callable[[int], None]
    ) -> dict[str, Any]:
        """Train it on the codes of pictures; what the protocol says of that.

        Args:
            source: The training pictures, of which at most `PICTURES` are read, evenly spread.
            batch_size: Pictures that are encoded at the same time.
            workers: Processes that decode pictures.
            report: Is told of every so many pictures that are read.

        Raises:
            UserError: There is no picture.
        """
        encoded, digests = list[Codes](), dict[int, bytes]()
        for batch in export_batches(source, [training_places(source.pictures)], batch_size, workers):
            if batch.images is not None:
                encoded.append(self._laid(self._codes(batch.images)))
                digests |= zip(batch.places, pixel_digests(to_bytes(batch.images.images)), strict=True)
            report(len(batch.places) + len(batch.skipped))
        if not encoded:
            raise UserError("--probe-prior trains a prior on the codes of training pictures, but there are none")
        by_grid: dict[tuple[int, ...], list[Codes]] = {}
        for codes in encoded:
            by_grid.setdefault(tuple(codes.require_grains().shape[1:]), []).append(codes)
        grids = [Codes.concatenate(by_grid[grid]) for grid in sorted(by_grid)]
        if len(grids) == 1:
            _, rows, columns = grids[0].require_grains().shape
            self._spec = replace(self._spec, regions=(rows, columns))
        with computing(self._device):
            self._prior = _trained(grids, self._spec)
        return {
            "prior": "raster-scan",
            "width": _WIDTH,
            "heads": _HEADS,
            "layers": [_POSITION_LAYERS, _CONTENT_LAYERS],
            "steps": _STEPS,
            "pictures_a_step": _BATCH,
            "learning_rate": _LEARNING_RATE,
            "seed": _SEED,
            "pictures": len(digests),
            "pixels": hashlib.sha256(b"".join(digests[place] for place in sorted(digests))).hexdigest(),
        }

    @torch.no_grad()
    def measure(self, unseen: Iterable[ImageBatch]) -> Seen[dict[str, Value]]:
        """The bits of pictures that it was not trained on; several processes may measure together.

        Returns:
            `probe_bits_per_image`, which is the sum of `probe_position_bits_per_image`, for the granularities of
            regions, and `probe_content_bits_per_image`; and `probe_bits_per_code`.

        Raises:
            UserError: They are of another size than the training pictures; or, when it is concluded, there is none.
        """
        sums: list[dict[str, float]] = []
        for images in unseen:
            own = self._codes(images)
            laid = self._laid(own).validate(self._spec)
            with computing(self._device):
                found = likelihood_sums(self._prior.loss(laid), laid)
            sums.append({**found, "own codes": float(len(own.ids))})  # the ends of a row are none
        return Seen({"sums": sums}, _figures)

    @torch.no_grad()
    def _codes(self, images: ImageBatch) -> Codes:
        with computing(self._device):
            return self._encode(images.images.to(self._device))

    def _laid(self, codes: Codes) -> Codes:
        """Codes that lie on a grid; classes are not told."""
        if self._row is None:
            return replace(codes, labels=None)
        _, longest = self._row.grid
        kept = torch.arange(longest, device=codes.device) < codes.lengths[:, None]
        grains = torch.zeros_like(kept, dtype=torch.long)[:, None]
        ids = codes.ids.new_full((*kept.shape, *self._row.id_shape), self._row.codebook_size - 1)
        ids = ids.masked_scatter(for_each_id(kept, self._row), codes.ids).flatten(0, 1)
        return Codes(ids, torch.full_like(codes.lengths, longest), grains)


def _figures(items: Items) -> dict[str, Value]:
    total = total_sums(items["sums"])
    if not total["images"]:
        raise UserError("there is no picture to measure")
    position, content = (total[f"nats/{part}"] / math.log(2) for part in ("position", "content"))
    figures = {
        "probe_bits_per_image": (position + content) / total["images"],
        "probe_position_bits_per_image": position / total["images"],
        "probe_content_bits_per_image": content / total["images"],
        "probe_bits_per_code": (position + content) / total["own codes"],
    }
    return {name: Value(value) for name, value in figures.items()}


def training_places(pictures: int) -> list[int]:
    """Which of so many training pictures a probe reads."""
    count = min(pictures, PICTURES)
    return [place * pictures // count for place in range(count)]


def _trained(grids: Sequence[Codes], spec: CodeSpec) -> RasterScan:
    """A prior of its own weights and order of pictures, which are drawn on the host: alike on all devices.

    Args:
        grids: The codes of each grid. The first picture of a step tells of which all are, so that each grid has as many
            steps as it has pictures, on average.
        spec: What they may be.
    """
    of_pictures = torch.repeat_interleave(torch.tensor([len(codes) for codes in grids])).tolist()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        position, content = (
            Transformer(_WIDTH, _HEADS, layers, dropout=0.0) for layers in (_POSITION_LAYERS, _CONTENT_LAYERS)
        )
        prior = RasterScan(spec, position, content, dropout=0.0).to(grids[0].device)
        chosen = torch.randint(len(of_pictures), (_STEPS, _BATCH))
    optimizer = torch.optim.AdamW(prior.parameters(), _LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=_STEPS, pct_start=_WARMUP, cycle_momentum=False
    )
    for images in chosen:
        optimizer.zero_grad()
        codes = grids[of_pictures[int(images[0])]]
        prior.loss(codes[images % len(codes)]).total.backward()
        torch.nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return prior.eval()
