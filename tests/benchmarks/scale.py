"""What the paper's runs on ImageNet take on 1 to 512 GPUs, and codes of large collections on disk: on paper.

    python -m tests.benchmarks.scale

writes `scale.md`. Nothing is timed: operations are counted on tensors without values, bytes on what is really written.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.recipe_steps import RECIPES, batch_of, objective, recipe_of, train, trains_prior
from vltok.codes import Codes, CodeSpec
from vltok.pictures.images import ImageBatch
from vltok.sequences.manifest import Shard
from vltok.sequences.shards import CodeSample, TarShards
from vltok.testing import PretendedDevice
from vltok.training.objective import Objective

from .memory import without_values

#: Pictures of ImageNet-1k's training split, of ImageNet-21k (release of fall 2011), of LAION-400M and of LAION-2B-en.
COLLECTIONS = {
    "ImageNet-1k": 1_281_167,
    "ImageNet-21k": 14_197_122,
    "LAION-400M": 413_871_335,
    "LAION-2B-en": 2_322_161_807,
}
RUNS = ("imagenet_dq", "imagenet_dq_transformer", "imagenet_dq_transformer_large")
GPUS = (1, 8, 64, 512)
NODE = 8
#: How many of a picture's codes the paper's tokenizer has on average: 256 regions, half of them with 4 codes.
LENGTH = 640


@dataclass(frozen=True)
class Gpu:
    """What the makers publish of a GPU in their machine of eight.

    Attributes:
        name: What it is called.
        flops: Dense products in bfloat16, operations a second.
        inside: Bytes a second that it sends to the others of its machine.
        outside: Bytes a second that it sends to other machines.
    """

    name: str
    flops: float
    inside: float
    outside: float


#: NVIDIA's data sheets of DGX A100 (NVLink 600 GB/s and eight HDR ports of 200 Gb/s) and DGX H100 (900, 400 Gb/s).
KINDS = (Gpu("A100", 312e12, 300e9, 25e9), Gpu("H100", 989e12, 450e9, 50e9))
#: The share of a GPU's operations that a training uses. Convolutions of 128 channels reach less than large matrices.
UTILISATION = {False: 0.25, True: 0.40}


@dataclass(frozen=True)
class Step:
    """A training step of one process.

    Attributes:
        recipe: The recipe's name.
        pictures: How many it takes.
        operations: Counted, forwards and backwards.
        bytes: Of the gradients that processes exchange.
        epochs: How often a run sees ImageNet-1k.
        prior: Whether it trains a prior.
    """

    recipe: str
    pictures: int
    operations: float
    bytes: int
    epochs: int
    prior: bool

    @classmethod
    def of(cls, name: str) -> Step:
        """That of a recipe."""
        path = RECIPES / f"{name}.yaml"
        training, batch = objective(path, "meta"), batch_of(path)
        gradients = sum(each.numel() * 4 for each in training.parameters() if each.requires_grad)
        epochs = recipe_of(path)["trainer"]["max_epochs"]
        return cls(name, len(batch), operations(training, batch), gradients, epochs, trains_prior(path))

    def computing(self, gpu: Gpu) -> float:
        """Seconds that it computes."""
        return self.operations / (gpu.flops * UTILISATION[self.prior])


def operations(training: Objective, batch: ImageBatch | Codes) -> int:
    """Operations of a training step, two for each product with its sum; but for the scores of attention.

    Args:
        training: What trains, on the device ``meta``.
        batch: What it trains on, on the host.
    """
    with without_values(training), FlopCounterMode(display=False) as counted:
        train(training, batch.to(PretendedDevice.name), PretendedDevice.name, steps=1)
    return counted.get_total_flops()


def encoding_operations(name: str) -> float:
    """Operations of the codes of a picture."""
    path = RECIPES / f"{name}.yaml"
    training, batch = objective(path, "meta"), batch_of(path, 1)
    with without_values(training), FlopCounterMode(display=False) as counted, torch.no_grad():
        training.trained.encode_batch(batch.to(PretendedDevice.name).images)
    return counted.get_total_flops()


def exchange(size: float, gpus: int, gpu: Gpu) -> float:
    """Seconds in which all GPUs have the sum of `size` bytes of each, but for what each message waits.

    Within a machine each sums a part of what all have; then the eighth parts are summed over the machines, each GPU by
    a port of its own; then each sends its part to the others.
    """
    here, machines = min(gpus, NODE), max(gpus // NODE, 1)
    inside = 2 * (here - 1) / here * size / gpu.inside
    return inside + 2 * (machines - 1) / machines * (size / here) / gpu.outside


def runs(steps: Sequence[Step]) -> Iterator[list[str]]:
    """Of each recipe on each number of GPUs: how long a step and a run take."""
    for step in steps:
        for gpu in KINDS:
            for count in GPUS:
                computing, waiting = step.computing(gpu), exchange(step.bytes, count, gpu)
                pictures = step.pictures * count / (computing + waiting)
                hours = COLLECTIONS["ImageNet-1k"] * step.epochs / pictures / 3600
                yield [
                    step.recipe,
                    f"{count} {gpu.name}",
                    f"{step.pictures * count:,}",
                    f"{computing * 1e3:.0f} ms",
                    f"{waiting * 1e3:.1f} ms",
                    f"{waiting / (computing + waiting):.0%}",
                    f"{pictures:,.0f}",
                    f"{hours:,.1f} h" if hours < 100 else f"{hours / 24:,.1f} days",
                ]


def sample_bytes(length: int = LENGTH, pictures: int = 500) -> float:
    """Bytes of a picture's codes in a tar shard, with grain map, label and key, as `vltok tokenize` writes them."""
    spec = CodeSpec(1024, (8, 16))
    ids, grains = np.zeros(length, np.int64), np.zeros((16, 16), np.int64)
    samples = [CodeSample(place, f"n01440764/n01440764_{place}", ids, grains, 7) for place in range(pictures)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "codes.tar")
        TarShards().write(path, samples, spec.codebook_size)
        return path.stat().st_size / pictures


def shard_bytes() -> int:
    """Bytes of a shard in `codes.json`."""
    shard = dataclasses.asdict(Shard("codes-000000.tar", 2000, 2000 * LENGTH, 10**7, "0" * 64))
    two, one = (len(json.dumps({"shards": [shard] * count}, indent=1)) for count in (2, 1))
    return two - one


def disk(shard_size: int) -> Iterator[list[str]]:
    """Of each collection: what its codes take, how many files they are, and what the files beside them grow to."""
    each = sample_bytes()
    for name, pictures in COLLECTIONS.items():
        shards = -(-pictures // shard_size)
        yield [
            name,
            f"{pictures:,}",
            in_units(pictures * each),
            f"{shards:,}",
            in_units(shards * shard_bytes()),
            in_units(pictures * 24),
        ]


def in_units(size: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def encoding(each: float) -> Iterator[list[str]]:
    """Of each collection: how long its export takes, at so many operations a picture."""
    for name, pictures in COLLECTIONS.items():
        for gpu in KINDS:
            speed = gpu.flops * UTILISATION[False] / each
            hours = pictures / speed / 3600
            yield [name, gpu.name, f"{speed:,.0f}", f"{hours:,.1f}", f"{hours / 64:,.2f}"]


def table(head: str, rows: Iterable[list[str]]) -> str:
    """A table of Markdown."""
    names = head.split(" | ")
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(steps: Sequence[Step], each: float) -> str:
    """What `scale.md` says."""
    counted = table(
        "recipe | a step of a process | operations | exchanged",
        (
            [step.recipe, f"{step.pictures} pictures", f"{step.operations / 1e12:.1f} T", in_units(step.bytes)]
            for step in steps
        ),
    )
    on_gpus = table(
        "recipe | GPUs | pictures a step | computes | exchanges | share | pictures/s | the run", runs(steps)
    )
    exported = table("collection | GPU | pictures/s of one | GPU hours | hours of 64 parts", encoding(each))
    stored = table("collection | pictures | codes | shards | `codes.json` | `codes.index.npy`", disk(2000))
    return _TEXT.format(
        counted=counted,
        on_gpus=on_gpus,
        exported=exported,
        stored=stored,
        utilisation=f"{UTILISATION[False]:.0%} in tokenizers and {UTILISATION[True]:.0%} in priors",
        sample=f"{sample_bytes():,.0f}",
        entry=shard_bytes(),
    )


def main() -> None:
    steps = [Step.of(name) for name in RUNS]
    Path(__file__).with_suffix(".md").write_text(text(steps, encoding_operations(RUNS[0])), encoding="utf-8")


_TEXT = """\
# The paper's runs on many machines, on paper

`python -m tests.benchmarks.scale` writes this page. Nothing on it was timed. Operations are counted in a step whose
tensors have sizes, but no values; bytes are those of what is written. No GPU of ours has confirmed a row.

## Training

A process takes the batch of the recipe. Two operations count for each product with its sum; the scores of a prior's
attention, which are left out, would add about 6 %. Gradients are exchanged in float32.

{counted}

Assumed are dense products in bfloat16 at 312 T a second (A100) and 989 T (H100), of which {utilisation} are used;
NVLink of 300 and 450 GB/s one way inside a machine of eight, and a port of 25 and 50 GB/s for each GPU between
machines (data sheets of DGX A100 and DGX H100). The sum of gradients is taken apart over the eight, then over
machines, and waits for nothing else; DDP hides most of it behind the backward pass, so that these are the longest
times. A message's own delay is left out: a step of the tokenizer has four exchanges besides the gradients (seven with
the gate `gain`), however many processes there are.

{on_gpus}

Where it ends:

1. **The batch, not the network.** 64 GPUs take 1,920 pictures a step and 512 take 15,360; the paper's learning rate
   for an image would come to 0.07 there. With the 240 images of eight GPUs kept, 240 GPUs have one image each. What
   holds for larger batches has to be tried; `vltok fit` prints the batch and the rate.
2. **Decoding JPEGs.** A machine of eight H100 trains on 1,600 pictures a second. A core of the machine
   of `results` decodes and crops 85 of 500 × 375 a second, so that twenty such cores must stand behind that, and as
   many workers (`data.workers` counts for each process).
3. **The large prior's gradients.** Without overlap a sixth of a step on H100 between machines. More tokens a step and
   accumulation halve it; sharded weights do not, for they move as many bytes.

## Export

Operations of the encoder and the gate, a third of a step forwards, at the same share of the GPU's. All parts of an
array work apart.

{exported}

Reading comes first here: 1,700 pictures a second are 190 MB of JPEGs of 110 kB, and twenty cores that decode them.

## Disk

A picture of 640 codes takes {sample} bytes in a tar shard with its grain map, label and key: 1,280 are codes and 256
the map, the rest are headers and the padding of tar. Shards have 2,000 pictures; each is {entry} bytes of
`codes.json`, each picture 24 of `codes.index.npy`. The statistics do not grow: a histogram of lengths, and a figure
for each granularity.

{stored}

Where it ends:

1. **Files of a folder.** A million shards in one folder are slow on every file system. `--shard-size 50000` makes
   LAION-2B 46,000 of 257 MB. What a killed part repeats grows with the shard.
2. **The start of a training on codes.** Each process reads all shards once and compares checksums: at 1 GB/s two
   minutes for ImageNet-21k, 36 minutes for LAION-400M and more than three hours for LAION-2B. It also holds the
   index, 24 bytes a picture: 10 GB for LAION-400M, in every process. That is the next bottleneck to mend.
3. **The start of a part.** Every part lists all pictures, or reads the headers of all shards, for the digest of the
   input. For LAION's 41,400 shards of 10,000 this is a seek for each member; give parts folders of their own, and
   merge.
4. **The end.** The last part gathers all records, of which the index is the largest part: as much memory as
   `codes.index.npy`, twice.
"""

if __name__ == "__main__":
    main()
