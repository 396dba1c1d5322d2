"""Code sequences of pictures by a Ray cluster."""

from vltok_ray.parts import tokenize as tokenize
