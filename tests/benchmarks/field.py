"""What only a GPU can be asked: how near drawing comes to what its memory allows, and the protocols in which others
quote their speed, decoding included. Their figures are those that they give for an A100; nothing of theirs is measured.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

import vltok
from vltok.codes import CodeSpec
from vltok.interfaces import Prior, SamplingConfig
from vltok.nn.llama import Llama
from vltok.nn.transformer import Transformer
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.sequence import SequencePrior

from .base_prior import dq_transformer, told
from .table import Row, Setting, timed

#: The recipe of the tokenizer that decodes each prior's codes.
FIXED, VARIABLE = "imagenet_vqgan_f16", "imagenet_dq_triple"


def rows(setting: Setting) -> Iterator[Row]:
    """The share of the memory's bandwidth, what a batch gains, and two protocols; nothing on a CPU."""
    if setting.device == "cuda" or setting.tiny:
        yield from bandwidth(setting)
        yield from rar(setting)
        yield from llamagen(setting)


def bandwidth(setting: Setting) -> Iterator[Row]:
    """A code of one image reads all weights once: no faster than they can be read."""
    prior = dq_transformer(setting, side=4 if setting.tiny else 8).eval()
    codes, many = (16, 2) if setting.tiny else (160, 64)
    sampling = SamplingConfig(precision="bfloat16", codes=codes)
    rates = []
    for images in (1, many):
        draw(prior, images, sampling)
        rates.append(images * codes / timed(lambda images=images: draw(prior, images, sampling), setting.device))
    read = sum(weight.numel() for weight in prior.parameters()) * 2 * rates[0]
    share = read / copied(setting)
    size = f"{codes} codes, bfloat16, {told(prior)}"
    yield Row("drawing one image", size, f"{rates[0]:,.0f} codes/s", "the bandwidth of a copy", [share], target=0.6)
    yield Row(
        f"drawing {many} images", size, f"{rates[1]:,.0f} codes/s", "one image", [rates[1] / rates[0]], target=10.0
    )


def copied(setting: Setting) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.empty(2**20 if setting.tiny else 2**30, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * len(source) / min(timed(lambda: target.copy_(source), setting.device) for _ in range(setting.turns))


def rar(setting: Setting) -> Iterator[Row]:
    """RAR's: float32, 128 images of 256 codes at once, with guidance (https://arxiv.org/abs/2411.00776)."""
    width, heads, layers, images, side = (64, 4, 2, 2, 4) if setting.tiny else (960, 15, 24, 128, 16)
    fixed = SequencePrior(
        CodeSpec(1024, (16,), (side, side)), Transformer(width, heads, layers), classes=1000, label_dropout=0.1
    )
    sampling = SamplingConfig(guidance=2.0)
    quoted = "RAR, 261M, A100: 17.0 images/s"
    for prior, recipe in ((fixed, FIXED), (variable(setting, width, heads, layers), VARIABLE)):
        seconds = pictures(prior, recipe, images, sampling, setting)
        yield Row("RAR's protocol", size(prior, images, "float32"), f"{images / seconds:.1f} images/s", quoted)


def llamagen(setting: Setting) -> Iterator[Row]:
    """LlamaGen's: 8 classes of 576 codes with guidance (https://arxiv.org/abs/2406.06525)."""
    width, heads, layers, images, side = (64, 4, 2, 2, 4) if setting.tiny else (768, 12, 12, 8, 24)
    fixed = SequencePrior(
        CodeSpec(16384, (16,), (side, side)),
        Llama(side, width, heads, layers),
        classes=1000,
        label_dropout=0.1,
    )
    sampling = SamplingConfig(guidance=4.0, precision="bfloat16")
    quoted = "LlamaGen, 111M, A100: 7.80 s; with vLLM 2.39 s"
    for prior in (fixed, variable(setting, width, heads, layers)):
        seconds = pictures(prior, FIXED if prior is fixed else VARIABLE, images, sampling, setting)
        yield Row("LlamaGen's protocol", size(prior, images, "bfloat16"), f"{seconds:.2f} s", quoted)


def variable(setting: Setting, width: int, heads: int, layers: int) -> DQTransformer:
    """A DQ-Transformer of as many layers, a quarter of them for positions."""
    spec = CodeSpec(1024, (8, 16, 32), (2, 2) if setting.tiny else (8, 8))
    parts = [Transformer(width, heads, count) for count in (max(layers // 4, 1), layers - max(layers // 4, 1))]
    return DQTransformer(spec, *parts, classes=1000, label_dropout=0.1)


def pictures(prior: Prior, recipe: str, images: int, sampling: SamplingConfig, setting: Setting) -> float:
    """Seconds from classes to pictures, the second time."""
    prior = prior.to(setting.device).eval()
    codebook = {"model.tokenizer.quantizer.size": prior.spec.codebook_size}
    tokenizer = vltok.build(recipe, "model.tokenizer", codebook).to(setting.device).eval()

    def work() -> None:
        tokenizer.decode(draw(prior, torch.arange(images), sampling))

    work()
    return timed(work, setting.device)


def draw(prior: Prior, wanted: int | torch.Tensor, sampling: SamplingConfig) -> vltok.Codes:
    return prior.sample(wanted, sampling, torch.Generator().manual_seed(0))


def size(prior: Prior, images: int, precision: str) -> str:
    parameters = sum(weight.numel() for weight in prior.parameters())
    return f"{images} images, {precision}, {type(prior).__name__}, {parameters / 1e6:.0f}M parameters"
