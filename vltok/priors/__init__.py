"""Autoregressive priors.

Authors of others may build on `conditioning`, `lengths`, `likelihood` and `sampling`, which are as public as
`vltok.interfaces`: classes, control of the code length, the loss, and random streams with filters and guidance.
"""
