"""The quantizers of vector-quantize-pytorch for vltok."""
