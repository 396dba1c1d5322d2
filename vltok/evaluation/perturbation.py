"""What reconstructions keep of their quality when some of their codes are wrong, as those that a generator draws are.

After the perturbed FID of "Robust Latent Matters" (Qiu et al. 2025, https://arxiv.org/abs/2503.08354) and "Image
Tokenizer Needs Post-Training" (https://arxiv.org/abs/2509.12474): a share of an image's codes, their perturbation rate
α, gives way to codes drawn evenly from the nearest of each in the codebook, their perturbation strength δ, and the
distance is that between the pictures and what is decoded from such codes. Theirs is a number of codes that holds the
code itself; here it is a share of the codebook without it, so that codebooks of other sizes compare and every drawn
code is another one.

Axis letters: b image, t code (packed over the batch), v vocabulary, c channel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.evaluation.coders import TokenizerCoder
from vltok.evaluation.distances import SetDistances
from vltok.evaluation.features import FeatureNetwork
from vltok.evaluation.gathering import Items, Seen
from vltok.evaluation.measurement import named_distances, pixel_digests
from vltok.evaluation.values import Value, mean_value
from vltok.interfaces import Quantizer, Tokenizer
from vltok.measures.pixels import psnr, to_bytes, to_unit_range
from vltok.nn.precision import computing
from vltok.pictures.images import ImageBatch

#: The shares of codes that are replaced, one after another.
SHARES = (0.1, 0.25, 0.5)
#: By which: the share of the codebook that lies nearest to a code.
NEAREST = 1 / 16
#: Distances that are in memory at the same time.
_DISTANCES = 2**24


@torch.inference_mode()
def measure_perturbed(
    tokenizer: Tokenizer,
    encode: Callable[[Float[Tensor, "b 3 H W"]], Codes],
    batches: Iterable[ImageBatch],
    network: FeatureNetwork | None,
    device: torch.device | str,
    seed: int,
) -> tuple[Seen[dict[str, Value]], dict[str, Any]]:
    """Decode pictures from codes of which some are wrong; several processes may measure together.

    Args:
        tokenizer: In evaluation mode, on `device`.
        encode: Gives its codes of images in [-1, 1].
        batches: This process's pictures.
        network: Gives the features of the distances between the pictures and what is decoded; on `device`.
        device: Where to compute.
        seed: Sets, with a picture's pixels, which of its codes are replaced, and by which of the nearest.

    Returns:
        For each of `SHARES`, as ``perturbed_25_…`` for a quarter: `psnr`, with a confidence interval, and, with a
        network, its Fréchet and its kernel distance. And the protocol.

    Raises:
        UserError: The tokenizer has no codebook whose vectors say which codes are near; or, when it is concluded,
            there is no picture.
    """
    vectors = codebook_vectors(tokenizer, device)
    count = max(1, round(NEAREST * len(vectors)))
    coder = TokenizerCoder(tokenizer, device)
    distances = [SetDistances(device) for _ in SHARES]
    qualities: list[list[float]] = [[] for _ in SHARES]
    for batch in batches:
        pixels = to_bytes(batch.images).to(device)
        original = to_unit_range(pixels)
        with computing(device):
            codes = encode(original)
        noise = _noise(codes, pixel_digests(pixels), seed)
        others = near_codes(codes.ids, vectors, count, noise[1])
        seen = None if network is None else network(pixels)
        for share, distance, found in zip(SHARES, distances, qualities, strict=True):
            ids = torch.where(noise[0] < share, others, codes.ids)
            decoded = coder.decoded(Codes(ids, codes.lengths, codes.grains)).pixels.to(device)
            found += psnr(to_unit_range(decoded), original).tolist()
            if network is not None and seen is not None:
                distance.update(seen, real=True)
                distance.update(network(decoded), real=False)
    seen_at: dict[float, dict[str, list[Any]]] = {
        share: {"psnr": found, **distance.items}
        for share, distance, found in zip(SHARES, distances, qualities, strict=True)
    }

    def conclude(items: Items) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for share, lists in seen_at.items():
            at = {name: items[f"{share}/{name}"] for name in lists}
            if not at["psnr"]:
                raise UserError("there is no picture to measure")
            named = {"psnr": mean_value(np.array(at["psnr"]), seed)}
            if network is not None:
                found = SetDistances(device, at).compute(seed)
                computed = {name: found[name] for name in ("frechet", "kernel")}
                named |= named_distances(computed, network.name)
            values |= {f"perturbed_{share * 100:.0f}_{name}": value for name, value in named.items()}
        return values

    items = {f"{share}/{name}": values for share, lists in seen_at.items() for name, values in lists.items()}
    return Seen(items, conclude), {"shares": list(SHARES), "nearest": count, "seed": seed}


def codebook_vectors(tokenizer: Tokenizer, device: torch.device | str) -> Float[Tensor, "v c"]:
    """The vectors of the codes of a tokenizer on a device.

    Raises:
        UserError: Codes have several ids, or it does not have exactly one quantizer of as many codes as its spec.
    """
    size = tokenizer.spec.codebook_size
    if tokenizer.spec.codebooks > 1:
        raise UserError(
            "--perturb-codes replaces codes by near ones of one codebook, but these have "
            f"{tokenizer.spec.codebooks} ids each: leave it out"
        )
    found = [part for part in tokenizer.modules() if isinstance(part, Quantizer) and part.size == size]
    if len(found) != 1:
        raise UserError(
            f"--perturb-codes replaces codes by near ones, but {type(tokenizer).__name__} has {len(found)} quantizers "
            f"of its {size} codes to say which are near: leave it out"
        )
    return found[0].lookup(torch.arange(size, device=device)[None, None])[0, :, 0].T.float()


def _noise(codes: Codes, digests: list[bytes], seed: int) -> Float[Tensor, "two t"]:
    """Two numbers in [0, 1) for each code, which follow from the seed and its picture's pixels."""
    parts = []
    for length, digest in zip(codes.lengths.tolist(), digests, strict=True):
        drawn = int.from_bytes(hashlib.sha256(digest + seed.to_bytes(8, "big")).digest()[:7], "big")
        parts.append(torch.rand(2, length, generator=torch.Generator().manual_seed(drawn)))
    return torch.cat(parts, dim=1).to(codes.device)


def near_codes(
    ids: Int[Tensor, " t"], vectors: Float[Tensor, "v c"], count: int, noise: Float[Tensor, " t"]
) -> Int[Tensor, " t"]:
    """For each code another one.

    Args:
        ids: The codes.
        vectors: Those of the codebook.
        count: Among how many that lie nearest one is chosen.
        noise: By which, in [0, 1).
    """
    occurring, place = ids.unique(return_inverse=True)
    near = []
    for part in occurring.split(max(1, _DISTANCES // len(vectors))):
        distances = torch.cdist(vectors[part], vectors)
        # the code itself is none of them, whatever others lie in the same place
        distances.scatter_(1, part[:, None], torch.inf)
        near.append(distances.topk(count, largest=False).indices)
    return torch.cat(near)[place, (noise * count).long()]
