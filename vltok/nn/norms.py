"""Normalisation of convolutional blocks, as VQGAN has it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vltok.processes import sum_over_processes, world

#: VQGAN's groups and epsilon (https://arxiv.org/abs/2012.09841, and its official implementation).
GROUPS = 32
EPSILON = 1e-6


class GroupNorm(nn.Module):
    """Group norm, also of groups of a single value, as a small image's coarsest code has; torch's own refuses those.

    Args:
        groups: How many groups the channels form.
        channels: Width of what is normalised.
        activation: Applied to the result.
    """

    def __init__(self, groups: int, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.activation = activation

    def forward(self, features: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        """Normalise each group of channels of each image."""
        return self.activation(torch.group_norm(features, self.groups, self.weight, self.bias, EPSILON))


def group_norm(channels: int, groups: int = GROUPS) -> GroupNorm:
    """Group norm with as many groups as asked for, or with as many as divide both this number and the width."""
    return GroupNorm(math.gcd(channels, groups), channels, nn.Identity())


def group_norm_silu(channels: int, groups: int = GROUPS) -> GroupNorm:
    """The same, followed by SiLU."""
    return GroupNorm(math.gcd(channels, groups), channels, nn.SiLU(inplace=True))


class BatchNorm(nn.Module):
    """Batch norm over the images of all processes, with the state of torch's `BatchNorm2d`.

    Torch's own `SyncBatchNorm` does so on GPUs alone.

    Args:
        channels: Width of what is normalised.
        epsilon: Against division by zero.
        momentum: Share of a batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, epsilon: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, features: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        """Normalise each channel: in training by its statistics in the batch, otherwise by the running ones."""
        if self.training:
            self.num_batches_tracked += 1
            if world()[1] > 1:
                return self._over_processes(features)
        running = (self.running_mean, self.running_var)
        return F.batch_norm(features, *running, self.weight, self.bias, self.training, self.momentum, self.epsilon)

    def _over_processes(self, features: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
        values = features.float()
        count = sum_over_processes(values.new_full((), values[:, 0].numel()))
        mean = _TotalOverProcesses.apply(values.sum(dim=(0, 2, 3))) / count
        centered = values - mean[:, None, None]
        variance = _TotalOverProcesses.apply(centered.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp_min(1), self.momentum)
        scale = self.weight * (variance + self.epsilon).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)


class _TotalOverProcesses(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of the gradients of all."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        return sum_over_processes(value.clone())

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.clone())
