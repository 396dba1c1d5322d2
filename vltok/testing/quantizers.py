"""What every quantizer must hold."""

from __future__ import annotations

import torch
from torch import Tensor

from vltok.code_maps import for_each_id
from vltok.codes import CodeSpec
from vltok.interfaces import Quantized, Quantizer
from vltok.testing.modules import TrainableContract


class QuantizerContract(TrainableContract[Quantizer]):
    """Tests of a quantizer, which a test class inherits."""

    def test_it_says_what_its_codes_are(self):
        quantizer = self.build()
        assert isinstance(quantizer.size, int) and quantizer.size >= 1
        assert isinstance(quantizer.dimension, int) and quantizer.dimension >= 1
        assert isinstance(quantizer.codebooks, int) and quantizer.codebooks >= 1

    def test_each_vector_gets_a_code(self):
        for mode in (True, False):
            quantizer = self.build().train(mode)
            # a grid, one place, and a line, as a tokenizer without a grid has it
            for shape in ((3, 4, 5), (1, 1, 1), (2, 1, 7)):
                vectors = torch.randn(shape[0], quantizer.dimension, *shape[1:])
                found = quantizer(vectors)
                assert found.ids.shape == (*shape, *_spec(quantizer).id_shape) and not found.ids.dtype.is_floating_point
                assert found.ids.min() >= 0 and found.ids.max() < quantizer.size
                assert found.vectors.shape == vectors.shape and found.vectors.dtype == vectors.dtype
                assert found.vectors.isfinite().all()
                assert found.loss.dim() == 0 and found.loss.isfinite()

    def test_vectors_are_those_of_the_codes(self):
        quantizer = self.build().eval()
        found = quantizer(_vectors(quantizer))
        torch.testing.assert_close(found.vectors, quantizer.lookup(found.ids))

    def test_every_code_has_a_vector(self):
        quantizer = self.build().eval()
        ids = for_each_id(torch.arange(quantizer.size)[None, None], _spec(quantizer))
        vectors = quantizer.lookup(ids)
        assert vectors.shape == (1, quantizer.dimension, 1, quantizer.size) and vectors.isfinite().all()
        places = ids.movedim(2, 0)
        assert quantizer.lookup(places).equal(vectors.permute(3, 1, 0, 2)), "a code's vector depends on its place"

    def test_different_vectors_get_different_codes(self):
        quantizer = self.build()
        vectors = 3 * _vectors(quantizer)
        _train(quantizer, vectors)
        assert quantizer.eval()(vectors).ids.unique().numel() > 1 or quantizer.size == 1

    def test_vectors_do_not_meet_in_evaluation(self):
        quantizer = self.build().eval()
        vectors = _vectors(quantizer)
        together = quantizer(vectors)
        alone = [quantizer(vectors[index : index + 1, :, row : row + 1]) for index in range(4) for row in range(6)]
        ids = torch.cat([each.ids for each in alone]).view(together.ids.shape)
        # a sum in another order may tip a vector that lies between two codes
        assert (ids == together.ids).float().mean() > 0.95

    def test_the_gradient_passes_straight(self):
        """What the vectors that it gives are asked to become, the vectors that it was given learn."""
        quantizer = self.build().train()
        vectors = _vectors(quantizer).requires_grad_()
        upstream = torch.randn(vectors.shape)
        found = quantizer(vectors).vectors
        assert found.requires_grad, "no gradient passes"
        (gradient,) = torch.autograd.grad((found * upstream).sum(), vectors, allow_unused=True)
        assert gradient is not None and gradient.isfinite().all()
        assert (gradient * upstream).mean() > 0

    def test_a_code_counts_by_its_weight(self):
        """One coarse code on 2 × 2 cells and four fine ones have the loss of the same five codes side by side."""
        quantizer = self.build().eval()
        codes = torch.randn(1, quantizer.dimension, 1, 5)
        grid = torch.cat([codes[..., :1].expand(-1, -1, 2, 2), codes[..., 1:].unflatten(3, (2, 2)).squeeze(2)], dim=3)
        weights = torch.tensor([[0.25, 0.25, 1, 1]] * 2)[None, None]
        torch.testing.assert_close(quantizer(grid, weights).loss, quantizer(codes).loss)
        assert quantizer(grid, weights).ids.equal(quantizer(grid).ids)

    def test_training_brings_codes_closer(self):
        quantizer = self.build()
        vectors = _vectors(quantizer)
        before = _distance(quantizer, vectors)
        _train(quantizer, vectors)
        assert _distance(quantizer, vectors) <= before

    def _respond(self, module: Quantizer) -> list[Tensor]:
        found: Quantized = module(self._there(_vectors(module)))
        return [found.ids, found.vectors, found.loss]

    def _loss(self, module: Quantizer) -> Tensor:
        found = module(self._there(_vectors(module)).requires_grad_())
        return found.loss + (found.vectors * torch.randn_like(found.vectors)).mean()


def _spec(quantizer: Quantizer) -> CodeSpec:
    return CodeSpec(quantizer.size, codebooks=quantizer.codebooks)


def _vectors(quantizer: Quantizer) -> Tensor:
    return torch.randn(4, quantizer.dimension, 6, 7, generator=torch.Generator().manual_seed(0))


def _train(quantizer: Quantizer, vectors: Tensor) -> None:
    """Let it learn to give vectors back, which stay what they are."""
    parameters = list(quantizer.parameters())
    optimizer = torch.optim.Adam(parameters, lr=3e-2) if parameters else None
    quantizer.train()
    for _ in range(50):
        found = quantizer(vectors)
        loss = found.loss + (found.vectors - vectors).square().mean()
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _distance(quantizer: Quantizer, vectors: Tensor) -> Tensor:
    with torch.no_grad():
        return (quantizer.eval()(vectors).vectors - vectors).square().mean()
