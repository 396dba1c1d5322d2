"""Encoders: images → one feature map for each downsampling factor, from coarse to fine."""

import difflib
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.interfaces import Encoder
from vltok.nn.backbones import feature_network
from vltok.nn.levels import plan_levels
from vltok.nn.norms import GROUPS, group_norm, group_norm_silu
from vltok.nn.resampling import Downsample
from vltok.nn.residual import AttentiveResidual, ResidualStage

#: What frees a backbone from its image size: the first is known to timm's vision transformers, the second to its Swins.
_ANY_SIZE_OPTIONS = {"dynamic_img_size": True, "strict_img_size": False}


class VQGANEncoder(Encoder):
    """The hierarchical encoder: VQGAN's trunk, and a head for each factor that reads the trunk at its resolution.

    ```
    images ─ conv ─ level 1 ─↓2─ level 2 ─↓2─ level 4 ─↓2─ level 8 ─↓2─ level 16
                                                              └─ head      └─ head
                                                            features[1]  features[0]
    ```

    A level is `blocks` residual blocks (with attention where asked for); a head is two residual blocks with attention
    between, norm, SiLU, and a 3×3 convolution. Section 3.2 and supplementary 1 of https://arxiv.org/abs/2305.11718.

    Args:
        factors: Downsampling factors, powers of two, in any order.
        width: Base number of channels.
        multipliers: The channels of each level, in units of `width`: one for each of the factors 1, 2, 4, … up to the
            coarsest.
        blocks: Residual blocks of each level.
        attention_factors: The factors of the levels that have attention after each block.
        channels: Width of the feature maps.
        dropout: Probability of dropout in the residual blocks.
        middle_attention: Whether the middle of a head has attention.
        norm_groups: Groups of each norm, or as many as divide both this number and the width.

    Raises:
        UserError: A factor is no power of two, or `multipliers` or `attention_factors` do not fit the factors.
    """

    def __init__(
        self,
        factors: Sequence[int],
        width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        blocks: int = 2,
        attention_factors: Sequence[int] = (16,),
        channels: int = 256,
        dropout: float = 0.0,
        middle_attention: bool = True,
        norm_groups: int = GROUPS,
    ) -> None:
        super().__init__()
        self._factors = _coarse_to_fine(factors)
        self._channels = channels
        levels = plan_levels(self._factors[0], width, multipliers, attention_factors)
        self._heads_of_levels = [
            self._factors.index(level.factor) if level.factor in self._factors else None for level in levels
        ]
        before = [width] + [level.channels for level in levels[:-1]]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.levels = nn.ModuleList(
            ResidualStage(in_channels, level.channels, blocks, level.attention, dropout, norm_groups)
            for in_channels, level in zip(before, levels, strict=True)
        )
        self.downsamples = nn.ModuleList(Downsample(level.channels) for level in levels[:-1])
        self.heads = nn.ModuleList(
            nn.Sequential(
                OrderedDict(
                    middle=AttentiveResidual(level.channels, dropout, middle_attention, norm_groups),
                    norm=group_norm_silu(level.channels, norm_groups),
                    out=nn.Conv2d(level.channels, channels, 3, padding=1),
                )
            )
            for level in reversed(levels)
            if level.factor in self._factors
        )

    @property
    def factors(self) -> tuple[int, ...]:
        return self._factors

    @property
    def channels(self) -> int:
        return self._channels

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c _ _"]]:
        _check_sides(images, self._factors[0])
        h = self.stem(images)
        features = []
        for index, (level, head) in enumerate(zip(self.levels, self._heads_of_levels, strict=True)):
            h = level(self.downsamples[index - 1](h) if index else h)
            if head is not None:
                features.append(self.heads[head](h))
        return features[::-1]


class PatchEncoder(Encoder):
    """A light encoder for small computers: patches, then residual blocks at the factors' own resolutions only.

    ```
    images ─ patches of the finest factor ─ blocks ─ merge ─ blocks ─ …
                                              └─ head          └─ head
    ```

    Args:
        factors: Downsampling factors, each coarser one a multiple of the next finer; any numbers, in any order.
        width: Channels inside.
        blocks: Residual blocks at each resolution.
        channels: Width of the feature maps.
        dropout: Probability of dropout in the residual blocks.

    Raises:
        UserError: A factor is no multiple of the next finer one.
    """

    def __init__(
        self, factors: Sequence[int], width: int = 128, blocks: int = 2, channels: int = 128, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self._factors = _coarse_to_fine(factors)
        self._channels = channels
        # Patches of pixels first, then patches of patches: a resolution's convolution has no overlap.
        fine_to_coarse = self._factors[::-1]
        steps = [fine_to_coarse[0]] + [coarse // fine for fine, coarse in itertools.pairwise(fine_to_coarse)]
        self.merges = nn.ModuleList(
            nn.Conv2d(width if index else 3, width, step, stride=step) for index, step in enumerate(steps)
        )
        self.levels = nn.ModuleList(ResidualStage(width, width, blocks, dropout=dropout) for _ in steps)
        self.heads = nn.ModuleList(
            nn.Sequential(OrderedDict(norm=group_norm_silu(width), out=nn.Conv2d(width, channels, 1))) for _ in steps
        )

    @property
    def factors(self) -> tuple[int, ...]:
        return self._factors

    @property
    def channels(self) -> int:
        return self._channels

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c _ _"]]:
        _check_sides(images, self._factors[0])
        h = images
        features = []
        for merge, level, head in zip(self.merges, self.levels, reversed(self.heads), strict=True):
            h = level(merge(h))
            features.append(head(h))
        return features[::-1]


class TimmEncoder(Encoder):
    """Any timm backbone that publishes its feature maps; each is normed and projected to one width.

    Reductions and channels are read from the backbone's `feature_info`; of several maps of one factor the deepest is
    taken, and what lies beyond the deepest one taken is not built. Images are normalised as the backbone's pretrained
    configuration says.

    Args:
        backbone: A name of `timm.list_models()`, with a tag of weights if wanted (``resnet50.a1_in1k``).
        factors: Downsampling factors that the backbone offers, in any order.
        channels: Width of the feature maps.
        pretrained: Whether to start from timm's pretrained weights.
        image_size: Side of the images, for backbones that take one size only and are to take another than their own.

    Raises:
        UserError: There is no such backbone, it offers no feature maps or not all of the factors, or its pretrained
            weights cannot be had.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        backbone: str,
        factors: Sequence[int],
        channels: int = 256,
        pretrained: bool = False,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self._factors = _coarse_to_fine(factors)
        self._channels = channels
        self._name = backbone
        offered, options = _offered_features(backbone, image_size)
        absent = [factor for factor in self._factors if factor not in offered]
        if absent:
            raise UserError(f"factors names {absent}, but backbone '{backbone}' offers {sorted(offered)}")
        # timm gives maps in the order of their depth, which need not be that of their factors
        indices = sorted(offered[factor] for factor in self._factors)
        self._order = [indices.index(offered[factor]) for factor in self._factors]
        try:
            self.backbone = feature_network(backbone, pretrained=pretrained, out_indices=indices, **options)
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            weights = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
            source = weights and (weights.hf_hub_id or weights.url)
            raise UserError(
                f"the pretrained weights {source or 'of'} of backbone '{backbone}' cannot be "
                f"had: download them where there is a network, or write pretrained: false to start from random ones"
            ) from error
        published = self.backbone.model.pretrained_cfg
        fixed = published["fixed_input_size"] and options.keys().isdisjoint(_ANY_SIZE_OPTIONS)
        self._only_size = (image_size or published["input_size"][-1]) if fixed else None
        # [-1, 1] → [0, 1] → zero mean and unit variance, in one step
        mean, deviation = torch.tensor(published["mean"]), torch.tensor(published["std"])
        self.register_buffer("scale", (0.5 / deviation)[:, None, None])
        self.register_buffer("shift", ((0.5 - mean) / deviation)[:, None, None])
        widths = self.backbone.feature_info.channels()
        self.heads = nn.ModuleList(
            nn.Sequential(
                OrderedDict(norm=group_norm(widths[place]), out=nn.Conv2d(widths[place], channels, 1)),
            )
            for place in self._order
        )

    @property
    def factors(self) -> tuple[int, ...]:
        return self._factors

    @property
    def channels(self) -> int:
        return self._channels

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c _ _"]]:
        """The feature maps, from coarse to fine.

        Raises:
            UserError: The backbone takes images of one size only, and these have another.
        """
        _check_sides(images, self._factors[0])
        if self._only_size is not None and tuple(images.shape[2:]) != (self._only_size, self._only_size):
            raise UserError(
                f"backbone '{self._name}' takes images of {self._only_size} × {self._only_size} only, not "
                f"{images.shape[2]} × {images.shape[3]}; set the encoder's image_size, or choose another backbone"
            )
        maps = self.backbone(images * self.scale + self.shift)
        return [head(maps[place]) for head, place in zip(self.heads, self._order, strict=True)]


def _coarse_to_fine(factors: Sequence[int]) -> tuple[int, ...]:
    if not factors:
        raise UserError("factors must name at least one downsampling factor, such as [8, 16]")
    return CodeSpec(codebook_size=1, factors=tuple(factors)).factors


def _check_sides(images: Tensor, factor: int) -> None:
    if images.shape[2] % factor or images.shape[3] % factor:
        raise UserError(
            f"images of {images.shape[2]} × {images.shape[3]} do not divide into regions of {factor} × {factor}"
        )


def _offered_features(backbone: str, image_size: int | None) -> tuple[dict[int, int], dict]:
    """The index of the deepest feature map of each factor, and the options with which timm is to build the backbone."""
    if ":" not in backbone and not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone, timm.list_models(), n=5)
        hint = f"; near are: {', '.join(near)}" if near else ""
        raise UserError(f"no timm backbone is called '{backbone}'{hint}; timm.list_models() gives them all")
    # The getter prunes what lies beyond the deepest map, in every family alike.
    given: dict[str, Any] = {"feature_cls": "getter"}
    if image_size is not None:
        given["img_size"] = image_size
    reason: Exception
    # A family that takes images of any size anyway, or of one size only, does not know such an option.
    for options in (*({**given, option: value} for option, value in _ANY_SIZE_OPTIONS.items()), given):
        try:
            with torch.device("meta"):
                info = feature_network(backbone, **options).feature_info
        except TypeError as error:
            reason = error
        except (AttributeError, RuntimeError, ValueError) as error:
            reason = error
            break
        else:
            return dict(zip(info.reduction(), info.out_indices, strict=True)), options
    raise UserError(
        f"backbone '{backbone}' cannot be built for feature maps: {str(reason).splitlines()[0]}"
    ) from reason
