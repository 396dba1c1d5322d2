"""Encoding and decoding against `diffusers.VQModel`, which has the same weights: it is imported.

Each is given its better memory format: both are tried, and the faster counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

import torch
from diffusers import VQModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import vltok
from vltok import Tokenizer
from vltok.nn.convolutions import packed_convolutions
from vltok.nn.resampling import Upsample

from .table import Row, Setting, in_turns, name, precision, ratios, timed


def rows(setting: Setting) -> Iterator[Row]:
    """Encode and decode, at each precision and batch size."""
    size = 16 if setting.tiny else 256
    theirs = vq_model(tiny=setting.tiny).to(setting.device).eval()
    ours = imported(theirs).to(setting.device).eval()
    parameters = sum(weight.numel() for weight in ours.parameters())
    for dtype in setting.precisions:
        for batch in (1,) if setting.tiny else (1, 4):
            images = torch.rand(batch, 3, size, size, device=setting.device) * 2 - 1
            with precision(dtype, setting.device):
                pairs = works(ours, theirs, images)
                for work, (our, their) in pairs.items():
                    for model, function in ((ours, our), (theirs, their)):
                        faster_format(model, function, setting.device)
                    told = f"{size}², batch {batch}, {name(dtype)}, {parameters / 1e6:.1f}M parameters"
                    with packed_convolutions(ours):  # as every verb that codes does
                        compared = _compared(our, their, batch, setting)
                    yield Row(work, told, *compared, target=1.3)
                    yield limit(work, told, ours, our, setting)


def works(ours: Tokenizer, theirs: VQModel, images: Tensor) -> dict[str, tuple[Callable, Callable]]:
    """What each does with images, and with their codes."""
    codes, latents = ours.encode(images), theirs.encode(images).latents
    return {
        "encode": (lambda: ours.encode(images), lambda: theirs.quantize(theirs.encode(images).latents)),
        "decode": (lambda: ours.decode(codes), lambda: theirs.decode(latents)),
    }


def _compared(ours: Callable, theirs: Callable, batch: int, setting: Setting) -> tuple[str, str, list[float]]:
    seconds, baseline = in_turns(ours, theirs, setting)
    return (
        f"{batch / min(seconds):.2f} images/s",
        f"diffusers.VQModel {batch / min(baseline):.2f} images/s",
        ratios(seconds, baseline),
    )


def limit(work: str, size: str, model: nn.Module, function: Callable, setting: Setting) -> Row:
    """What the model's convolutions alone take, which no arrangement of the rest can go below, and how much of the
    machine's matrix product they reach."""
    calls: list[tuple[nn.Module, Tensor]] = []
    inside = {module.conv for module in model.modules() if isinstance(module, Upsample)}
    convolutions = [
        module for module in model.modules() if isinstance(module, nn.Conv2d | Upsample) and module not in inside
    ]
    hooks = [each.register_forward_pre_hook(lambda *call: calls.append((call[0], call[1][0]))) for each in convolutions]
    with FlopCounterMode(display=False) as counter:  # which does not know packed convolutions
        function()
    for hook in hooks:
        hook.remove()

    def alone() -> None:
        for module, features in calls:
            module(features)

    with packed_convolutions(model):
        seconds, convolving = in_turns(function, alone, setting)
    speed = counter.get_flop_counts()["Global"][torch.ops.aten.convolution] / min(convolving)
    return Row(
        f"{work}, the limit",
        size,
        f"{1000 * min(seconds):.0f} ms",
        f"its convolutions alone {1000 * min(convolving):.0f} ms, at {speed / peak(setting):.0%} of a matrix product",
        ratios(seconds, convolving),
    )


def peak(setting: Setting) -> float:
    """Floating-point operations a second of a large matrix product, in the precision at hand."""
    side = 64 if setting.tiny else 4096
    a, b = torch.randn(2, side, side, device=setting.device)
    a @ b  # autocast keeps what it has cast
    return 2 * side**3 / min(timed(lambda: a @ b, setting.device) for _ in range(setting.turns))


def faster_format(model: nn.Module, work: Callable[[], Tensor], device: str) -> None:
    """Leave a model in the memory format in which a work is faster."""
    seconds = {}
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model.to(memory_format=memory_format)
        work()
        seconds[memory_format] = timed(work, device)
    model.to(memory_format=min(seconds, key=lambda each: seconds[each]))


def vq_model(tiny: bool) -> VQModel:
    """VQGAN of f16 with 1,024 codes, as taming-transformers has it."""
    widths = (32, 64) if tiny else (128, 128, 256, 256, 512)
    plain = len(widths) - 1
    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * plain + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * plain,
        block_out_channels=widths,
        layers_per_block=1 if tiny else 2,
        latent_channels=64 if tiny else 256,
        vq_embed_dim=64 if tiny else 256,
        num_vq_embeddings=1024,
    )


def imported(model: VQModel) -> Tokenizer:
    """The same model as a tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(f"{folder}/diffusers")
        vltok.import_model(f"{folder}/diffusers", out=f"{folder}/bundle")
        return Tokenizer.from_pretrained(f"{folder}/bundle")
