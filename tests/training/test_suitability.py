"""What a prior is told before it is trained on codes that it was not built for."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

import vltok
from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.interfaces import FixedSize, Tokenizer, TokenizerOutput
from vltok.losses.adversarial import PatchGAN
from vltok.pictures.photos import Photos
from vltok.priors.raster_scan import RasterScan
from vltok.sequences.data import CodeData
from vltok.testing.priors import random_codes
from vltok.training.suitability import check_codes, check_images
from vltok.training.tokenizer import TokenizerTraining

from ..cli.runs import dq_vae
from ..sequences.code_exports import export_codes
from ..tiny_priors import tiny_prior


class Blank(Tokenizer, FixedSize):
    """Has none of the abilities that only some tokenizers have but one size."""

    spec = CodeSpec(4, max_length=1)
    divisor = 8
    image_size = (16, 24)

    def encode_batch(self, images: Tensor) -> Codes:
        return Codes(torch.zeros(len(images), dtype=torch.long), torch.ones(len(images), dtype=torch.long))

    def decode_batch(self, codes: Codes) -> Tensor:
        return torch.zeros(len(codes), 3, *self.image_size)

    def forward(self, images: Tensor) -> TokenizerOutput:
        codes = self.encode_batch(images)
        return TokenizerOutput(self.decode_batch(codes), codes, {})


def test_a_tokenizer_of_one_size_takes_no_other() -> None:
    with pytest.raises(UserError, match=r"data\.size is 16, but this tokenizer takes images of 16 × 24 only"):
        check_images(Blank(), Photos(size=16, batch_size=4))


def test_a_tokenizer_without_a_last_layer_is_trained_without_a_discriminator() -> None:
    TokenizerTraining(Blank())
    with pytest.raises(UserError, match=r"model\.discriminator: Blank names no last layer.*set it to null"):
        TokenizerTraining(Blank(), discriminator=PatchGAN(width=8))


def test_a_prior_of_a_grid_is_not_trained_on_plain_sequences(tmp_path: Path) -> None:
    spec = CodeSpec(16, max_length=8)
    export_codes(tmp_path, random_codes(spec, 4, classes=4), spec=spec)
    prior = tiny_prior(RasterScan, 16, (4, 8), (2, 2))
    with pytest.raises(UserError, match=r"factors \[8, 4\], but the codes in .* lie on no grid: give a prior"):
        check_codes(prior, CodeData(root=str(tmp_path)))


def test_a_gate_that_nothing_holds_is_warned_of() -> None:
    model = yaml.safe_load(dq_vae("feature, init_args: {channels: 8, granularities: 2, norm_groups: 2}"))["model"]
    recipe = model["init_args"]["tokenizer"]
    with pytest.warns(UserWarning, match="nothing holds the code length"):
        check_images(vltok.build(recipe), Photos(size=16, batch_size=4))
    with pytest.raises(UserError, match=r"data\.size is 20, but must be a multiple of 8"):
        check_images(vltok.build(recipe), Photos(size=20, batch_size=4))


@pytest.mark.parametrize(
    ("gate", "kept"),
    [
        ("gain, init_args: {channels: 8, ratios: {4: 0.5, 8: 0.5}}", "10.0"),
        ("entropy, init_args: {ratios: {4: 0.75, 8: 0.25}}", "13.0"),
    ],
)
def test_a_gate_and_a_budget_that_ask_for_other_lengths_are_refused(gate: str, kept: str) -> None:
    recipe = yaml.safe_load(dq_vae(gate))["model"]["init_args"]["tokenizer"]
    budget = {"class_path": "code-length", "init_args": {"length": 8, "factors": [4, 8]}}
    tokenizer = vltok.build({**recipe, "init_args": {**recipe["init_args"], "budget": budget}})
    with pytest.raises(UserError, match=rf"come to {kept} codes an image, but model.tokenizer.budget asks for 8.0"):
        check_images(tokenizer, Photos(size=16, batch_size=4))
    budget["init_args"]["length"] = float(kept)
    check_images(vltok.build({**recipe, "init_args": {**recipe["init_args"], "budget": budget}}), Photos(16, 4))
