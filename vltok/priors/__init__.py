"""Autoregressive priors.

Authors of others may build on `lengths`, `losses` and `stepwise`, which are as public as `vltok.interfaces` and
`vltok.drawing`: control of the code length, the loss, and drawing step by step.
"""
