"""Drawing images from a prior: what all priors share, whatever their models.

Authors of priors build on it: `batches` (what a prior implements), `conditioning` (classes), `config` (options),
`keeping` (what of an image stays), and `sampling` (random streams, filters, guidance).
"""
