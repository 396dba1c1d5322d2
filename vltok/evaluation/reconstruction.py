"""Measuring a tokenizer or a codec on pictures: what it spends on them, and what they lose by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.evaluation.coders import BitsOfFiles, Coder
from vltok.evaluation.distances import SetDistances
from vltok.evaluation.features import FeatureNetwork
from vltok.evaluation.gathering import Items, Seen
from vltok.evaluation.measurement import (
    Measurement,
    describe_codes,
    joint_hash,
    named_distances,
    pixel_digests,
    seconds_each,
    without_warm_up,
)
from vltok.evaluation.region_correlations import RegionCorrelation
from vltok.evaluation.values import Value, mean_value
from vltok.figures.examples import Example
from vltok.measures.feature_distance import feature_distance
from vltok.measures.pixels import decibels, l1, mse, psnr, to_bytes, to_unit_range
from vltok.measures.regions import FLAT, local_contrast, region_l1
from vltok.measures.similarity import ssim
from vltok.sequences.statistics import CodeCounts

#: A figure of each picture, of reconstructions and pictures in [-1, 1].
PictureFigure = Callable[[Float[Tensor, "b 3 H W"], Float[Tensor, "b 3 H W"]], Float[Tensor, " b"]]
#: What every measurement tells of a picture.
ERRORS: Mapping[str, PictureFigure] = {"psnr": psnr, "l1": l1, "mse": mse}
#: What an evaluation tells besides.
QUALITIES: Mapping[str, PictureFigure] = {"psnr": psnr, "ssim": ssim, "l1": l1, "mse": mse}


@runtime_checkable
class HasImages(Protocol):
    """A batch, as the data modules give it."""

    @property
    def images(self) -> Tensor:
        """In [-1, 1], `[b 3 H W]`."""


@torch.inference_mode()
def measure_reconstruction(
    coder: Coder,
    spec: CodeSpec | None,
    batches: Iterable[HasImages],
    figures: Mapping[str, PictureFigure] = ERRORS,
    network: FeatureNetwork | None = None,
    fixed: Coder | None = None,
    examples: int = 0,
    device: torch.device | str = "cpu",
    seed: int = 0,
    files: BitsOfFiles | None = None,
) -> Seen[Measurement]:
    """Measure a coder on pictures, one batch in memory at a time; several processes may measure together.

    Args:
        coder: What is measured.
        spec: Of its codes; None for a codec.
        batches: This process's pictures, whose `images` are `[b 3 H W]` in [-1, 1]; sizes may differ between batches.
        figures: What is measured on each picture's 8-bit pixels.
        network: Gives the features of the distances between the pictures and their reconstructions; on `device`.
        fixed: Codes of fixed length, whose error in each region is compared with the granularity that the region got
            (Figure 5); for codes on a grid.
        examples: How many of its first pictures this process keeps.
        device: Where figures are computed.
        seed: Sets the resamples of confidence intervals.
        files: Gives the bits of the files that codes become.

    Returns:
        `figures`, with a confidence interval each, and of all pictures together `psnr_pooled`; `bits_per_pixel` at a
        fixed rate; `file_bits_per_pixel`, headers included; `length`, `length_std` (its standard deviation, divided
        by n), `codebook_usage` and `codebook_perplexity` of codes; `contrast_correlation`, of a region's granularity
        with its local contrast, and `flat_finest_share`, how many of the flat regions (`vltok.measures.regions.FLAT`)
        have the finest one; `error_correlation`, with its error at fixed length; the network's distances;
        `seconds_per_image`. What is not defined is left out.

    Raises:
        UserError: The coder does not take the pictures; or, when it is concluded, there is none.
    """
    distances = SetDistances(device)
    counts: CodeCounts | None = None
    contrasts, errors = RegionCorrelation("contrast_correlation"), RegionCorrelation("error_correlation")
    finest: list[np.ndarray] = []  # of each flat region, whether it has the finest granularity
    keys: list[str] = []
    kept: list[Example] = []
    columns: list[dict[str, np.ndarray]] = []
    times: list[tuple[float, int]] = []
    digests: list[bytes] = []
    for batch in batches:
        pixels = to_bytes(batch.images).cpu()
        began = time.perf_counter()
        coded = coder(pixels)
        times.append((time.perf_counter() - began, len(pixels)))
        codes, beside = coded.codes, None
        decoded, original = (to_unit_range(side.to(device)) for side in (coded.pixels, pixels))
        found = {name: figure(decoded, original).cpu() for name, figure in figures.items()}
        found["bits_per_pixel"] = coded.bits / pixels[0, 0].numel()
        if files is not None and codes is not None:
            found["file_bits_per_pixel"] = files(codes) / pixels[0, 0].numel()
        if spec is not None and codes is not None:
            found["length"] = codes.lengths.float()
            counted = CodeCounts.of(codes.validate(spec), spec, pixels[:, 0].numel())
            counts = counted if counts is None else counts + counted
            if spec.gridded:
                grains, contrast = codes.require_grains().cpu(), local_contrast(original, spec.factors[0]).cpu()
                contrasts.update(grains, contrast)
                finest.append((grains == spec.granularities - 1)[contrast < FLAT].numpy())
        if network is not None:
            seen, left = network(pixels.to(device)), network(coded.pixels.to(device))
            distances.update(seen, real=True)
            distances.update(left, real=False)
            if seen.maps:
                found[f"feature_distance/{network.name}"] = feature_distance(left.maps, seen.maps).cpu()
        if fixed is not None and spec is not None and codes is not None:
            beside = fixed(pixels).pixels
            regions = region_l1(beside, pixels, spec.factors[0])
            found["error_correlation"] = errors.update(codes.require_grains(), regions)
        columns.append({name: column.double().numpy() for name, column in found.items()})
        # a plug-in's batches need not name their pictures
        named = getattr(batch, "keys", [f"{len(keys) + place:06d}" for place in range(len(pixels))])
        keys += named
        digests += pixel_digests(pixels)
        for place in range(min(examples - len(kept), len(pixels))):
            own = {name: column[place].item() for name, column in found.items()}
            coded_as = None if codes is None else codes[place]
            example = Example(named[place], pixels[place], coded.pixels[place], coded_as, own)
            kept.append(example if beside is None else replace(example, fixed=beside[place]))
    seen = {
        "keys": keys,
        "digests": digests,
        "columns": columns,
        "counts": [] if counts is None else [counts.to_json()],
        "finest": finest,
        **contrasts.items,
        **errors.items,
        **distances.items,
        "times": without_warm_up(times),
        "examples": [example.to_plain() for example in kept],
    }

    def conclude(items: Items) -> Measurement:
        keys = items["keys"]
        if not keys:
            raise UserError("there is no picture to measure")
        columns = items["columns"]
        per_image = {name: np.concatenate([batch[name] for batch in columns]) for name in columns[0]}
        values = {name: mean_value(column, seed) for name, column in per_image.items() if name != "error_correlation"}
        values["psnr_pooled"] = pooled_psnr(values["mse"])
        if fixed is not None:
            values |= RegionCorrelation("error_correlation", items).values(per_image["error_correlation"], seed)
        described: Mapping[str, Any] = {}
        if spec is not None:
            counts = CodeCounts.total((CodeCounts.from_json(each, spec) for each in items["counts"]), spec)
            described = describe_codes(counts, spec)
            values["length_std"] = Value(described["length"]["variance"] ** 0.5)
            values |= {name: Value(described[name]["any"]) for name in ("codebook_usage", "codebook_perplexity")}
            if spec.granularities > 1:
                values |= RegionCorrelation("contrast_correlation", items).values()
                if len(of_flat := np.concatenate(items["finest"])):
                    values["flat_finest_share"] = Value(of_flat.mean().item())
        if network is not None:
            values |= named_distances(SetDistances(device, items).compute(seed), network.name, "r")
        values["seconds_per_image"] = seconds_each(items["times"])
        shown = [Example.from_plain(each) for each in items["examples"]]
        return Measurement(len(keys), joint_hash(items["digests"]), values, described, keys, per_image, shown)

    return Seen(seen, conclude)


def pooled_psnr(error: Value) -> Value:
    """The peak signal-to-noise ratio of all images together, in dB (`vltok.measures.pixels.decibels`).

    Args:
        error: The mean squared error over the images, of values in [0, 1].
    """
    # the fewer errors, the more decibels: the interval's ends change places
    low, high = (None if end is None else _decibels(end) for end in (error.high, error.low))
    return Value(_decibels(error.value), low, high)


def _decibels(error: float) -> float:
    return decibels(torch.tensor(error, dtype=torch.float64)).item()
