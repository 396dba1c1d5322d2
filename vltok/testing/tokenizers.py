"""What every tokenizer must hold."""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.interfaces import Adversarial, FixedSize, LengthTargeted, RatioTargeted, Steerable, Tokenizer
from vltok.measures.pixels import psnr
from vltok.rates import Rate
from vltok.testing.modules import TrainableContract, assert_state, pictures, smallest_and_larger, snapshot
from vltok.testing.outcomes import random_codes


class TokenizerContract(TrainableContract[Tokenizer]):
    """Tests of a tokenizer, which a test class inherits. Its codes may lie on a grid or not.

    Of a tokenizer that is `FixedSize`, images of its size are tried, of others two sizes.
    """

    read_backs = 1  # how many codes there are

    @abstractmethod
    def build(self) -> Tokenizer:
        """A tiny tokenizer with fresh weights; the same arguments each time. Where it must be calibrated before its
        first use, it has been."""

    def test_it_says_what_its_codes_are(self):
        tokenizer = self.build()
        assert isinstance(tokenizer.spec, CodeSpec)
        assert tokenizer.divisor >= 1
        if tokenizer.spec.gridded:
            assert tokenizer.divisor % tokenizer.spec.factors[0] == 0
        else:
            assert tokenizer.spec.longest_length >= 1
        if isinstance(tokenizer, FixedSize):
            assert not any(side % tokenizer.divisor for side in tokenizer.image_size)

    def test_codes_are_what_it_says(self):
        tokenizer = self.build()
        for height, width in _sizes(tokenizer):
            for batch in (1, 3):
                codes = tokenizer.encode(pictures(batch, height, width)).validate(tokenizer.spec)
                assert len(codes) == batch and codes.labels is None
                assert not codes.ids.dtype.is_floating_point and not codes.lengths.dtype.is_floating_point
                assert codes.lengths.min() >= 1
                if tokenizer.spec.gridded:
                    coarsest = tokenizer.spec.factors[0]
                    assert codes.grains.shape == (batch, height // coarsest, width // coarsest)
                else:
                    assert codes.grains is None

    def test_images_are_taken_as_a_notebook_has_them(self):
        tokenizer = self.build()
        pixels = ((self._images(tokenizer) + 1) * 127.5).round().clamp(0, 255).byte()
        codes = tokenizer.encode(pixels / 127.5 - 1)
        last = np.ascontiguousarray(pixels.permute(0, 2, 3, 1))
        assert tokenizer.encode(pixels).equal(codes)
        assert tokenizer.encode(last).equal(codes)
        first = tokenizer.encode(pixels[:1])
        assert tokenizer.encode(pixels[0]).equal(first)
        assert tokenizer.encode(Image.fromarray(last[0])).equal(first)
        with pytest.raises(UserError, match="these floats reach from"):
            tokenizer.encode(pixels.float())

    def test_codes_decode_to_images_of_the_size_that_was_encoded(self):
        tokenizer = self.build()
        for height, width in _sizes(tokenizer):
            for batch in (1, 3):
                images = tokenizer.decode(tokenizer.encode(pictures(batch, height, width)))
                assert images.shape == (batch, 3, height, width)
                assert images.dtype.is_floating_point and images.isfinite().all()

    def test_encoding_decides_as_in_evaluation_whatever_the_mode(self):
        tokenizer = self.build().train()
        images = self._images(tokenizer)
        before = snapshot(tokenizer)
        modes = {name: part.training for name, part in tokenizer.named_modules()}
        codes = tokenizer.encode(images)
        assert tokenizer.encode(images).equal(codes), "encoding twice gave other codes"
        decoded = tokenizer.decode(codes)
        assert_state(tokenizer, before)
        assert {name: part.training for name, part in tokenizer.named_modules()} == modes
        assert tokenizer.eval().encode(images).equal(codes), "the codes depend on the mode"
        assert tokenizer.decode(codes).equal(decoded), "the decoded images depend on the mode"

    def test_a_forward_pass_encodes_and_decodes(self):
        tokenizer = self.build().eval()
        images = self._images(tokenizer)
        output = tokenizer(images)
        assert output.codes.equal(tokenizer.encode(images))
        torch.testing.assert_close(output.reconstruction, tokenizer.decode(output.codes), rtol=1e-3, atol=1e-3)
        output = tokenizer.train()(images)
        output.codes.validate(tokenizer.spec)
        assert output.reconstruction.shape == images.shape
        assert all(loss.dim() == 0 and loss.isfinite() for loss in output.losses.values())

    def test_images_of_a_batch_do_not_meet(self):
        tokenizer = self.build()
        images = self._images(tokenizer)
        together = tokenizer.encode(images)
        alone = Codes.concatenate([tokenizer.encode(images[index : index + 1]) for index in range(len(images))])
        assert together.lengths.equal(alone.lengths)
        # a sum in another order may tip a vector that lies between two codes
        assert (together.ids == alone.ids).float().mean() > 0.9

    def test_codes_of_any_lengths_decode_in_one_batch(self):
        tokenizer = self.build()
        spec, (height, width) = tokenizer.spec, self._size(tokenizer)
        if spec.gridded:
            spec = dataclasses.replace(spec, regions=(height // spec.factors[0], width // spec.factors[0]))
        codes = random_codes(spec, 5)
        images = tokenizer.decode(codes)
        assert images.shape == (5, 3, height, width) and images.isfinite().all()
        alone = torch.cat([tokenizer.decode(image) for image in codes])
        torch.testing.assert_close(images, alone, rtol=1e-3, atol=1e-3)

    def test_codes_that_do_not_fit_are_refused(self):
        tokenizer = self.build()
        codes = tokenizer.encode(self._images(tokenizer))
        size, lengths, grains = tokenizer.spec.codebook_size, codes.lengths, codes.grains
        changes = [
            {"ids": codes.ids[:-1]},
            {"ids": torch.cat([codes.ids, codes.ids[:1]])},
            {"ids": torch.full_like(codes.ids, -1)},
            {"ids": torch.full_like(codes.ids, size)},
            {"lengths": lengths[:-1]},
        ]
        if grains is None:
            longest = tokenizer.spec.longest_length
            long = codes.ids[:1].expand(longest + 1, *codes.ids.shape[1:])
            changes.append({"ids": long, "lengths": torch.tensor([longest + 1])})
        else:
            changes += [{"grains": grains[:-1]}, {"grains": grains + tokenizer.spec.granularities}]
        if tokenizer.spec.granularities > 1:
            finest = torch.full_like(grains, tokenizer.spec.granularities - 1)
            changes.append({"grains": torch.zeros_like(grains) if grains.equal(finest) else finest})
        for change in changes:
            with pytest.raises(UserError):
                tokenizer.decode(_changed(codes, **change))

    def test_other_codes_decode_to_other_images(self):
        tokenizer = self.build()
        codes = tokenizer.encode(self._images(tokenizer))
        if tokenizer.spec.codebook_size > 1:
            other = dataclasses.replace(codes, ids=(codes.ids + 1) % tokenizer.spec.codebook_size)
            assert not tokenizer.decode(other).equal(tokenizer.decode(codes))

    def test_sizes_that_do_not_fit_are_refused(self):
        tokenizer = self.build()
        height, width = self._size(tokenizer)
        if tokenizer.divisor > 1 or isinstance(tokenizer, FixedSize):
            for images in (pictures(1, height + 1, width), pictures(1, height, width - 1)):
                for call in (tokenizer.encode, tokenizer):
                    with pytest.raises(UserError):
                        call(images)

    def test_what_is_asked_of_it_is_possible(self):
        tokenizer = self.build()
        spec, (height, width) = tokenizer.spec, self._size(tokenizer)
        longest = spec.max_length
        if spec.gridded:
            regions = (height // spec.factors[0]) * (width // spec.factors[0])
            longest = regions * spec.codes_per_region[-1]
        if isinstance(tokenizer, LengthTargeted):
            expected = tokenizer.expected_length(height, width)
            assert expected is None or 0 < expected <= longest
        if isinstance(tokenizer, RatioTargeted):
            ratios = tokenizer.target_ratios
            assert ratios is None or ratios.factors == spec.factors

    def test_it_can_be_steered_to_any_rate(self):
        tokenizer = self.build().train()
        images = self._images(tokenizer)
        if not isinstance(tokenizer, Steerable):
            with pytest.raises(UserError, match="cannot be steered"):
                tokenizer.encode(images, "codes=1")
            return
        try:
            found = tokenizer.candidates(images)
        except UserError:  # such as a gate that ranks nothing
            with pytest.raises(UserError):
                tokenizer.encode(images, "codes=1")
            return
        before = snapshot(tokenizer)
        lengths, scores = found.lengths, found.scores
        assert (lengths.diff(dim=1) > 0).all() and (scores.diff(dim=1) <= 0).all()
        assert scores.shape[1] == lengths.shape[1] - 1
        assert found.own.lengths.equal(tokenizer.encode(images).lengths)
        for share in (0.0, 0.5, 1.0):
            steps = torch.full_like(lengths[:, 0], int(share * scores.shape[1]))
            codes = found.after(steps).validate(tokenizer.spec)
            assert codes.lengths.equal(lengths.gather(1, steps[:, None])[:, 0])
            assert found.within(codes.lengths).lengths.equal(codes.lengths)
            if not tokenizer.spec.gridded:
                most = found.after(torch.full_like(steps, scores.shape[1]))
                assert all(one.ids.equal(whole.ids[: len(one.ids)]) for one, whole in zip(codes, most, strict=True))
            count = int(codes.lengths[0])
            assert (tokenizer.encode(images, Rate("codes", count)).lengths == count).all()
            assert tokenizer.encode(images, Rate("max-codes", count)).lengths.max() <= count
            mean = lengths.gather(1, steps[:, None]).float().mean().item()
            off = tokenizer.encode(images, Rate("mean-codes", mean)).lengths.float().mean() - mean
            assert off.abs() <= lengths.diff(dim=1).amax() / len(images) if scores.numel() else off == 0
        finest = psnr(tokenizer.decode(found.after(steps)), images)
        floor = finest.median().item() - 0.01
        met = psnr(tokenizer.decode(tokenizer.encode(images, Rate("psnr", floor))), images) >= floor - 1e-3
        assert met[finest >= floor].all()
        assert_state(tokenizer, before)

    def test_the_last_layer_gives_the_pixels(self):
        tokenizer = self.build().train()
        if isinstance(tokenizer, Adversarial):
            assert any(tokenizer.last_layer is parameter for parameter in tokenizer.parameters())
            total = tokenizer(self._images(tokenizer)).reconstruction.sum()
            assert torch.autograd.grad(total, tokenizer.last_layer)[0].any()

    def test_training_brings_reconstructions_closer(self):
        tokenizer = self.build().train()
        images = self._images(tokenizer)
        optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
        first = _error(tokenizer, images)
        for _ in range(20):
            optimizer.zero_grad()
            output = tokenizer(images)
            ((output.reconstruction - images).abs().mean() + sum(output.losses.values())).backward()
            optimizer.step()
        assert _error(tokenizer, images) < 0.9 * first

    def _size(self, tokenizer: Tokenizer) -> tuple[int, int]:
        return _sizes(tokenizer)[-1]

    def _images(self, tokenizer: Tokenizer) -> Tensor:
        return self._there(pictures(4, *self._size(tokenizer)))

    def _respond(self, module: Tokenizer) -> list[Tensor]:
        with torch.no_grad():
            output = module(self._images(module))
        return [output.reconstruction, output.codes.ids, output.codes.lengths, *output.losses.values()]

    def _loss(self, module: Tokenizer) -> Tensor:
        images = self._images(module)
        output = module(images)
        return (output.reconstruction - images).abs().mean() + sum(output.losses.values())


def _sizes(tokenizer: Tokenizer) -> list[tuple[int, int]]:
    only = tokenizer.image_size if isinstance(tokenizer, FixedSize) else None
    return smallest_and_larger(tokenizer.divisor, only)


def _changed(codes: Codes, **values: Tensor) -> Codes:
    """Codes with other values, which need not fit: a test's checks of shapes look at the constructor alone."""
    changed = copy.copy(codes)
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    return changed


def _error(tokenizer: Tokenizer, images: Tensor) -> Tensor:
    with torch.no_grad():
        return (tokenizer.decode(tokenizer.encode(images)) - images).abs().mean()
