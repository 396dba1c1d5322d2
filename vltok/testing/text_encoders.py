"""What every text encoder must hold."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from vltok.interfaces import TextEncoder
from vltok.testing.other_device import another_device, tolerance

_TEXTS = ("a cat", "", "two dogs \N{EM DASH} " * 100, "\N{CAT FACE}")


class TextEncoderContract(ABC):
    """Tests of a text encoder, which a test class inherits.

    Attributes:
        read_backs: How often it may make the host wait for a GPU; None for as often as it likes.
    """

    read_backs: int | None = 0

    @abstractmethod
    def build(self) -> TextEncoder:
        """A tiny text encoder; the same weights each time after the same `torch.manual_seed`."""

    def test_each_text_gets_a_row_of_vectors(self):
        encoder = self.build().eval()
        vectors, lengths = encoder(_TEXTS)
        assert vectors.shape == (len(_TEXTS), vectors.shape[1], encoder.width) and vectors.is_floating_point()
        assert lengths.dtype == torch.long and lengths.min() >= 1 and lengths.max() <= vectors.shape[1]
        assert all(row[:length].isfinite().all() for row, length in zip(vectors, lengths, strict=True))

    def test_texts_do_not_meet(self):
        encoder = self.build().eval()
        vectors, lengths = encoder(_TEXTS)
        for text, row, length in zip(_TEXTS, vectors, lengths, strict=True):
            alone, (own,) = encoder([text])
            assert own == length
            torch.testing.assert_close(row[:length], alone[0, :length])

    def test_texts_differ(self):
        vectors, _ = self.build().eval()(["a cat", "a dog"])
        assert not torch.allclose(vectors[0], vectors[1])

    def test_what_is_trained_gets_a_gradient(self):
        encoder = self.build().train()
        trained = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
        vectors, _ = encoder(_TEXTS)
        assert vectors.requires_grad == bool(trained)
        if trained:
            vectors.square().sum().backward()
        assert not [name for name, parameter in trained.items() if parameter.grad is None]

    def test_another_device_gives_the_same(self):
        encoder = self.build().eval()
        expected, lengths = encoder(_TEXTS)
        with another_device() as device:
            encoder.to(device.name)
            device.forget()
            found, there = encoder(_TEXTS)
            if self.read_backs is not None:
                assert len(device.read_backs) <= self.read_backs and not device.uploads
            assert there.tolist() == lengths.tolist()
            torch.testing.assert_close(found.cpu(), expected, **tolerance(device))

    def test_its_weights_can_be_kept(self):
        encoder, other = self.build().eval(), self.build().eval()
        other.load_state_dict(encoder.state_dict())
        torch.testing.assert_close(other(_TEXTS)[0], encoder(_TEXTS)[0])
