"""What kinds of devices can and cannot do."""

import torch

#: The kinds that compute in double precision; Apple's (mps) does not.
_WITH_DOUBLE = ("cpu", "cuda")


def widest(device: torch.device) -> torch.dtype:
    """The most precise type of floating-point numbers that a device computes in."""
    return torch.float64 if device.type in _WITH_DOUBLE else torch.float32
