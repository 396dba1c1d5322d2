"""Training steps on packed sequences against padded ones, on the same codes: real tokens a second and their ratio.

The padded baseline is what section 3.3 describes: each granularity's part is padded with ⟨pad⟩ to the longest of the
batch. Run with ``python tests/benchmarks/packed_training.py``; every default is the paper's base model and lengths.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.nn.attention import Packing
from vltok.nn.transformer import Transformer
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.orderings import Sequences


def random_codes(spec: CodeSpec, images: int, mean: float, deviation: float) -> Codes:
    """Images whose share of fine regions is normally distributed, as that of real ones is around its budget."""
    shares = (mean + deviation * torch.randn(images)).clamp(0, 1)
    grains = (torch.rand(images, *spec.regions) < shares[:, None, None]).long()
    lengths = torch.tensor(spec.codes_per_region)[grains].sum((1, 2))
    return Codes(torch.randint(spec.codebook_size, (int(lengths.sum()),)), lengths, grains)


def padded(sequences: Sequences, spec: CodeSpec) -> Sequences:
    """The same tokens with each granularity's part padded to the longest of the batch."""
    rows: dict[str, list[Tensor]] = {"contents": [], "positions": [], "granularities": []}
    lengths = sequences.packing.lengths
    for granularity in range(spec.granularities):
        parts = zip(*(getattr(sequences, name).split(lengths) for name in rows), strict=True)
        chosen = [
            tuple(track[granularities == granularity] for track in (contents, positions))
            for contents, positions, granularities in parts
        ]
        longest = max(len(contents) for contents, _ in chosen)
        pads = (spec.codebook_size, spec.positions(granularity))
        for name, index in (("contents", 0), ("positions", 1)):
            rows[name].append(
                torch.stack([F.pad(part[index], (0, longest - len(part[index])), value=pads[index]) for part in chosen])
            )
        rows["granularities"].append(torch.full((len(lengths), longest), granularity))
    tracks = [torch.cat(rows[name], dim=1) for name in rows]
    return Sequences(*(track.flatten() for track in tracks), Packing(torch.full((len(lengths),), tracks[0].shape[1])))


def step(prior: DQTransformer, sequences: Sequences) -> None:
    """A forward and a backward pass; ⟨pad⟩ counts for nothing in the loss."""
    predictions = prior(sequences)
    real = predictions.targets.contents != prior.spec.codebook_size
    losses = F.cross_entropy(predictions.contents, predictions.targets.contents, reduction="none")
    losses = losses + F.cross_entropy(predictions.positions, predictions.targets.positions, reduction="none")
    prior.zero_grad()
    (losses * real).sum().div(real.sum()).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--position-layers", type=int, default=6)
    parser.add_argument("--content-layers", type=int, default=18)
    parser.add_argument("--regions", type=int, default=16, help="regions along a side")
    parser.add_argument("--images", type=int, default=8, help="images a batch")
    parser.add_argument("--share", type=float, default=0.5, help="mean share of fine regions")
    parser.add_argument("--deviation", type=float, default=0.15, help="standard deviation of an image's share")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    prior = DQTransformer(
        CodeSpec(1024, (8, 16), (options.regions, options.regions)),
        Transformer(options.width, options.heads, options.position_layers, dropout=0.0),
        Transformer(options.width, options.heads, options.content_layers, dropout=0.0),
        dropout=0.0,
    ).to(options.device)
    # padding can make a sequence longer than any real one: give the steps that are left over an embedding too
    spare = 2 * prior.spec.longest_length
    prior.step_embedding = torch.nn.Embedding(spare, options.width, device=options.device)
    seconds = {"packed": 0.0, "padded": 0.0}
    tokens = {"packed": 0, "padded": 0}
    for batch in range(options.batches + 1):
        packed = prior.ordering(
            random_codes(prior.spec, options.images, options.share, options.deviation).to(options.device)
        )
        for name, sequences in (("packed", packed), ("padded", padded(packed, prior.spec))):
            begin = time.perf_counter()
            step(prior, sequences)
            if options.device == "cuda":
                torch.cuda.synchronize()
            if batch:  # the first one warms up
                seconds[name] += time.perf_counter() - begin
                tokens[name] += sequences.packing.total
    report = {f"{name} real tokens/s": tokens["packed"] / seconds[name] for name in seconds}
    report["padding share"] = 1 - tokens["packed"] / tokens["padded"]
    report["packed over padded"] = seconds["padded"] / seconds["packed"]
    print(json.dumps({name: round(value, 4) for name, value in report.items()}, indent=2))


if __name__ == "__main__":
    main()
