"""A prior that is not left-to-right: masked codes, of which the surest are drawn first."""

from vltok_masked.prior import Masked, MaskedSampling

__all__ = ["Masked", "MaskedSampling"]
