import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.sequences.statistics import CodeCounts

from .code_exports import SPEC, random_codes


def recomputed(codes: Codes, spec: CodeSpec) -> dict:
    """The same figures, image by image and code by code."""
    lengths = [int(length) for length in codes.lengths]
    regions = [int(grain) for grain in codes.grains.flatten()]
    used = {granularity: set() for granularity in range(spec.granularities)}
    for image in codes:
        place = 0
        for granularity in range(spec.granularities):
            count = int((image.grains == granularity).sum()) * spec.codes_per_region[granularity]
            of_codes = image.ids[place : place + count].view(count, spec.codebooks).tolist()
            used[granularity] |= {entry for code in of_codes for entry in enumerate(code)}
            place += count
        assert place == len(image.ids)
    pixels = len(regions) * spec.factors[0] ** 2
    bits = sum(lengths) * math.log2(spec.codebook_size) * spec.codebooks
    grain_bits = len(regions) * math.log2(spec.granularities)
    return {
        "mean": np.mean(lengths),
        "variance": np.var(lengths),
        "histogram": {str(length): lengths.count(length) for length in lengths},
        "ratios": {str(factor): regions.count(k) / len(regions) for k, factor in enumerate(spec.factors)},
        "usage": {
            str(factor): len(used[k]) / (spec.codebooks * spec.codebook_size) for k, factor in enumerate(spec.factors)
        },
        "any": len(set().union(*used.values())) / (spec.codebooks * spec.codebook_size),
        "bits": bits / pixels,
        "all bits": (bits + grain_bits) / pixels,
    }


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 6),
    factors=st.sampled_from([(8,), (8, 16), (8, 16, 32)]),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    cut=st.integers(0, 6),
    codebooks=st.integers(1, 3),
)
def test_counts_of_parts_give_the_statistics_of_the_whole(count, factors, grid, cut, codebooks) -> None:
    spec = CodeSpec(50, factors, codebooks=codebooks)
    codes = random_codes(count, spec, grid)
    pixels = spec.factors[0] ** 2 * grid[0] * grid[1]
    parts = [CodeCounts.of(part, spec, pixels * len(part)) for part in (codes[:cut], codes[cut:])]
    # through JSON, as a shard's counts go
    parts = [CodeCounts.from_json(json.loads(json.dumps(part.to_json())), spec) for part in parts]
    found = CodeCounts.total(parts, spec).statistics(spec)
    expected = recomputed(codes, spec)
    assert found["samples"] == count
    assert found["codes"] == len(codes.ids)
    assert found["pixels"] == count * pixels
    assert found["length"]["mean"] == pytest.approx(expected["mean"])
    assert found["length"]["variance"] == pytest.approx(expected["variance"])
    assert found["length"]["histogram"] == expected["histogram"]
    assert (found["length"]["minimum"], found["length"]["maximum"]) == (codes.lengths.min(), codes.lengths.max())
    assert found["ratios"] == pytest.approx(expected["ratios"])
    assert found["codebook_usage"] == pytest.approx({"any": expected["any"], **expected["usage"]})
    assert found["bits_per_pixel"]["codes"] == pytest.approx(expected["bits"])
    assert found["bits_per_pixel"]["codes_and_grain_map"] == pytest.approx(expected["all bits"])


def test_codes_that_lie_on_no_grid_have_no_ratios_and_no_cost_of_a_grain_map() -> None:
    spec = CodeSpec(16, max_length=8)
    gridded = random_codes(3, CodeSpec(16, (8,)))
    statistics = CodeCounts.of(Codes(gridded.ids, gridded.lengths), spec, 3 * 64).statistics(spec)
    assert statistics["ratios"] == {}
    assert list(statistics["codebook_usage"]) == ["any"]
    assert statistics["bits_per_pixel"] == {"codes": 18 * 4 / 192, "codes_and_grain_map": 18 * 4 / 192}


def test_nothing_has_no_statistics() -> None:
    with pytest.raises(UserError, match="no codes"):
        CodeCounts.of(random_codes(2)[:0], SPEC, 0).statistics(SPEC)
