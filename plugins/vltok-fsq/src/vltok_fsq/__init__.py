"""Finite scalar quantization for vltok."""
