"""Pure functions on tensors: every figure is defined here, once."""
