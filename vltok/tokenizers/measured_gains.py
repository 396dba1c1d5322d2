"""What finer codes gain each region, measured by decoding: the slow way, which the gate's scores stand for.

Axis letters: b image, h w grid of regions, k granularity, H W pixels.
"""

import itertools
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vltok.codes import Codes
from vltok.interfaces import Adaptive, Alternatives, Tokenizer
from vltok.measures.regions import region_errors

#: Every so many regions along a side are changed at once: so far apart, they hardly meet in the decoder.
_APART = 4


@torch.no_grad()
def measured_alternatives(tokenizer: Tokenizer, images: Float[Tensor, "b 3 H W"]) -> Alternatives:
    """The alternatives of images, whose steps count by what they were seen to gain.

    Each region is decoded at each granularity while those around it stay as the gate chose them, which takes 16·K
    decodings; a step gains by how much the region's own squared error falls.

    Raises:
        UserError: A side of the images is no multiple of the tokenizer's `divisor`.
    """
    assert isinstance(tokenizer, Adaptive)
    found, spec = tokenizer.alternatives(images), tokenizer.spec
    chosen = found.decision.grains
    rows, columns = (torch.arange(side, device=chosen.device) % _APART for side in chosen.shape[1:])
    errors = images.new_zeros(len(images), spec.granularities, *chosen.shape[1:])
    for granularity, down, across in itertools.product(range(spec.granularities), range(_APART), range(_APART)):
        here = (rows == down)[:, None] & (columns == across)
        if down < len(rows) and across < len(columns):
            grains = torch.where(here, granularity, chosen)
            decoded = tokenizer.decode_batch(Codes.from_code_map(found.mixture(grains), grains, spec))
            errors[:, granularity] += region_errors(decoded, images, spec.factors[0]) * here
    costs = torch.tensor(spec.codes_per_step, device=chosen.device)
    gains = -errors.diff(dim=1) / costs[:, None, None]
    return Alternatives(replace(found.decision, step_scores=gains), found.code_maps)
