"""Autoregressive priors.

Authors of others may build on `lengths`, `losses`, `stepwise` and `condition_reader`, which are as public as
`vltok.interfaces` and `vltok.drawing`: control of the code length, the loss, drawing step by step, texts and
embeddings.
"""
