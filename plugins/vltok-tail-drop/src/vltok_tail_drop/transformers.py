"""The two transformers of `TailDrop`, built of timm's blocks.

Axis letters: b image, n code, c channel, d width, H W pixels.
"""

import difflib

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vltok.errors import UserError


class WaveEncoder(nn.Module):
    """A timm vision transformer whose patches are read as waves over the image, from slow to fast.

    ```
    images ─ patches + positions ─ blocks ─ norm ─ the mean, the slope, …: each wave summed over the patches
    ```

    A wave is a learned weight for each patch, and starts as a cosine. So the first code sees the whole image from the
    first step on, and the next ones what it left out.

    Args:
        backbone: The name of a timm `VisionTransformer`, such as ``vit_small_patch16_224``.
        image_size: Side of the images in pixels.
        waves: How many.
        patch_size: Side of the patches in pixels; None for the backbone's own.
        depth: How many of the backbone's blocks are used, the first ones; None for all.
        pretrained: Whether to start from timm's pretrained weights.

    Raises:
        UserError: There is no such backbone, it is no vision transformer with positions, the patches do not divide the
            images or are fewer than the waves, or the pretrained weights cannot be had.
    """

    def __init__(
        self, backbone: str, image_size: int, waves: int, patch_size: int | None, depth: int | None, pretrained: bool
    ) -> None:
        super().__init__()
        vit = _backbone(backbone, image_size, patch_size, pretrained)
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.width: int = vit.embed_dim
        self.heads: int = vit.blocks[0].attn.num_heads
        if image_size % self.patch_size:
            raise UserError(
                f"tokenizer.image_size is {image_size}, but must be a multiple of {self.patch_size}, a patch's side"
            )
        side = image_size // self.patch_size
        if waves > side**2:
            raise UserError(
                f"tokenizer.max_length is {waves}, but must be at most {side**2}, the patches of an image: give it a "
                "smaller patch_size"
            )
        if depth is not None and not 1 <= depth <= len(vit.blocks):
            raise UserError(
                f"tokenizer.encoder_depth must lie between 1 and {len(vit.blocks)}, the blocks of '{backbone}', "
                f"not {depth}"
            )
        self.patch_embed = vit.patch_embed
        # without those of class tokens, which stand first
        positions = vit.pos_embed[:, -vit.patch_embed.num_patches :].detach().clone()
        self.positions = nn.Parameter(positions if pretrained else _positions(side, self.width))
        self.norm_pre = vit.norm_pre
        self.blocks = vit.blocks[:depth]
        if not pretrained:
            _initialise(self.blocks)
        self.norm = vit.norm
        self.waves = nn.Parameter(_cosines(side, waves))
        # [-1, 1] → [0, 1] → zero mean and unit variance, in one step
        mean, deviation = (torch.tensor(vit.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
        self.register_buffer("scale", 0.5 / deviation, persistent=False)
        self.register_buffer("shift", (0.5 - mean) / deviation, persistent=False)

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b n d"]:
        patches = self.patch_embed(images * self.scale + self.shift) + self.positions
        return self.waves @ self.norm(self.blocks(self.norm_pre(patches)))


class WaveDecoder(nn.Module):
    """Paints images from the vectors of waves.

    ```
    vectors ─ embed ─ each wave laid over the patches, and their sum + positions ─ blocks ─ norm ─ linear ─► pixels
    ```

    Args:
        waves: How many.
        dimension: Width of a vector.
        image_size: Side of the images in pixels.
        patch_size: Side of the patches in pixels.
        width: Width of the blocks.
        heads: Attention heads.
        depth: How many blocks.
    """

    def __init__(
        self, waves: int, dimension: int, image_size: int, patch_size: int, width: int, heads: int, depth: int
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.side = image_size // patch_size
        self.embed = nn.Linear(dimension, width)
        self.waves = nn.Parameter(_cosines(self.side, waves))
        self.positions = nn.Parameter(_positions(self.side, width))
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        _initialise(self.blocks)
        self.norm = nn.LayerNorm(width)
        self.pixels = nn.Linear(width, 3 * patch_size**2)

    def forward(self, vectors: Float[Tensor, "b n c"]) -> Float[Tensor, "b 3 H W"]:
        tokens = self.waves.T @ self.embed(vectors) + self.positions
        patches = self.pixels(self.norm(self.blocks(tokens)))
        return F.pixel_shuffle(patches.mT.unflatten(2, (self.side, self.side)), self.patch_size)


def _positions(side: int, width: int) -> Float[Tensor, "1 _ d"]:
    """Positions to start from, of which near ones are alike: sines and cosines of rows and columns."""
    return build_sincos2d_pos_embed([side, side], width)[None]


def _cosines(side: int, count: int) -> Float[Tensor, "n _"]:
    """The slowest cosines over a grid, slow ones first: rows of the discrete cosine transform, each of norm 1."""
    frequencies = torch.arange(side)
    rows = torch.cos(torch.pi / side * frequencies[:, None] * (frequencies + 0.5))
    rows = rows / rows.norm(dim=1, keepdim=True)
    waves = torch.einsum("ih,jw->ijhw", rows, rows).flatten(2).flatten(0, 1)
    speed = (frequencies[:, None] ** 2 + frequencies**2).flatten()
    return waves[speed.argsort(stable=True)[:count]]


def _initialise(blocks: nn.Module) -> None:
    """Start from weights with which tokens attend to different places, so that they soon carry different things."""
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def _backbone(name: str, image_size: int, patch_size: int | None, pretrained: bool) -> VisionTransformer:
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; near are: {', '.join(near)}" if near else ""
        raise UserError(f"no timm backbone is called '{name}'{hint}; timm.list_models('vit*') gives the likely ones")
    options = {"img_size": image_size, "num_classes": 0, "global_pool": "", "dynamic_img_size": False}
    if patch_size is not None:
        options["patch_size"] = patch_size
    try:
        vit = timm.create_model(name, pretrained=pretrained, **options)
    except TypeError as error:
        raise UserError(f"tokenizer.backbone '{name}' is no timm VisionTransformer: {error}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise UserError(
            f"the pretrained weights of backbone '{name}' cannot be had: download them where there is a network, or "
            "write pretrained: false to start from random ones"
        ) from error
    if not isinstance(vit, VisionTransformer) or vit.pos_embed is None:
        raise UserError(
            f"tokenizer.backbone '{name}' is a {type(vit).__name__}, no timm VisionTransformer with learned positions: "
            "give one such as vit_small_patch16_224"
        )
    return vit
