"""Sampling with caches against computing everything anew, and against the memory bandwidth.

For each precision and batch size: seconds a code and image, how many times that is faster than a full forward pass for
every code, and how much of the read bandwidth is used: bytes of matrices read a code, over the time of a code, over the
bandwidth of a plain sum measured in the same run. Run with ``python tests/benchmarks/cached_sampling.py``; every
default is the paper's base model and length.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn

from vltok.codes import Codes, CodeSpec
from vltok.interfaces import SamplingConfig
from vltok.nn.attention import Packing
from vltok.nn.transformer import Transformer
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.orderings import Sequences


def timed(function, device: str) -> float:
    """Seconds that a call takes."""
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def read_bandwidth(device: str, size: int, repeats: int = 11) -> float:
    """Bytes a second at which memory is read: the median of several sums over a buffer far larger than the caches."""
    buffer = torch.ones(size // 4, device=device)
    return size / statistics.median(timed(buffer.sum, device) for _ in range(repeats))


@torch.no_grad()
def recomputing(prior: DQTransformer, codes: int, device: str, points: int) -> float:
    """Seconds in which one image is drawn by a full forward pass over all earlier codes for every code: the passes at
    some lengths are measured, and those between them interpolated."""
    regions = prior.spec.positions(0)
    fine = (codes - regions) // (prior.spec.codes_per_region[-1] - 1)
    grains = (torch.arange(regions) < fine).long().view(1, *prior.spec.regions)
    length = int(torch.tensor(prior.spec.codes_per_region)[grains].sum())
    image = Codes(torch.zeros(length, dtype=torch.long), torch.tensor([length]), grains).to(device)
    whole = prior.ordering(image)
    lengths = torch.linspace(2, whole.packing.total, points).long().tolist()
    times = []
    for prefix in lengths:
        packing = Packing(torch.tensor([prefix], device=device))
        part = Sequences(whole.contents[:prefix], whole.positions[:prefix], whole.granularities[:prefix], packing)
        times.append(min(timed(lambda part=part: prior(part), device) for _ in range(2)))
    return torch.trapezoid(torch.tensor(times), torch.tensor(lengths, dtype=torch.float)).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--position-layers", type=int, default=6)
    parser.add_argument("--content-layers", type=int, default=18)
    parser.add_argument("--regions", type=int, default=16, help="regions along a side")
    parser.add_argument("--codes", type=int, default=640, help="codes of every image")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--points", type=int, default=6, help="lengths at which recomputing is measured")
    parser.add_argument("--buffer", type=int, default=2**30, help="bytes of the buffer that measures the bandwidth")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    prior = DQTransformer(
        CodeSpec(1024, (8, 16), (options.regions, options.regions)),
        Transformer(options.width, options.heads, options.position_layers),
        Transformer(options.width, options.heads, options.content_layers),
    )
    prior = prior.to(options.device).eval()
    matrices = sum(module.weight.numel() for module in prior.modules() if isinstance(module, nn.Linear))
    anew = recomputing(prior, options.codes, options.device, options.points)
    print(json.dumps({"recomputing, s an image": round(anew, 3)}))
    for precision in options.precisions:
        for size in options.batch_sizes:
            sampling = SamplingConfig(codes=options.codes, precision=precision)
            before = read_bandwidth(options.device, options.buffer)
            seconds = timed(lambda size=size, sampling=sampling: prior.sample(size, sampling), options.device)
            bandwidth = (before + read_bandwidth(options.device, options.buffer)) / 2
            read = matrices * getattr(torch, precision).itemsize * options.codes / seconds
            report = {
                "precision": precision,
                "batch size": size,
                "s an image": seconds / size,
                "ms a code and image": 1000 * seconds / size / options.codes,
                "times faster than recomputing": anew * size / seconds,
                "weights read, GB/s": read / 1e9,
                "read bandwidth, GB/s": bandwidth / 1e9,
                "share of the bandwidth": read / bandwidth,
            }
            print(
                json.dumps(
                    {name: round(value, 3) if isinstance(value, float) else value for name, value in report.items()}
                )
            )


if __name__ == "__main__":
    main()
