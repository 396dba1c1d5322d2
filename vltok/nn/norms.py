"""Normalisation of convolutional blocks, as VQGAN has it."""

import math

from timm.layers import GroupNorm, GroupNormAct

#: VQGAN's groups and epsilon (https://arxiv.org/abs/2012.09841, and its official implementation).
GROUPS = 32
EPSILON = 1e-6


def group_norm(channels: int) -> GroupNorm:
    """Group norm with 32 groups, or with as many as divide both 32 and the width."""
    return GroupNorm(channels, math.gcd(channels, GROUPS), eps=EPSILON)


def group_norm_silu(channels: int) -> GroupNormAct:
    """The same, followed by SiLU."""
    return GroupNormAct(channels, math.gcd(channels, GROUPS), eps=EPSILON, act_layer="silu", inplace=False)
