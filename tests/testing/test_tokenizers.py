"""Every registered tokenizer holds the contract, and the contract finds what is broken."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.interfaces import Adversarial, FixedSize, LengthTargeted, Tokenizer, TokenizerOutput
from vltok.registry import components
from vltok.testing import TokenizerContract, pictures
from vltok.tokenizers.budgets import RatioBudget
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gain_gate import GainGate
from vltok.tokenizers.gates import EntropyGate, FeatureGate, FixedGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer, VectorQuantizer
from vltok.tokenizers.residual_quantizer import ResidualQuantizer

from .broken import assert_found

HALF = {4: 0.5, 8: 0.5}


def dq_vae(gate, quantizer, budget=None, factors=(4, 8)) -> DQVAE:
    return DQVAE(
        PatchEncoder(list(factors), width=64, blocks=1, channels=16),
        gate,
        quantizer,
        PixelShuffleDecoder(4, channels=16, width=64, blocks=1),
        budget,
    )


class TestDQVAE(TokenizerContract):
    def build(self):
        return dq_vae(FeatureGate(16, 2, norm_groups=8), VectorQuantizer(32, 8), RatioBudget(HALF))


class TestDQVAEWithAGateThatIsTaught(TokenizerContract):
    def build(self):
        return dq_vae(GainGate(16, HALF), EMAVectorQuantizer(32, 8))


class TestDQVAEWithThresholds(TokenizerContract):
    def build(self):
        gate = EntropyGate({4: 0.3, 8: 0.3, 16: 0.4})
        gate.calibrate([pictures(4, 32, 48)])
        return dq_vae(gate, EMAVectorQuantizer(32, 8), factors=(4, 8, 16))


class TestDQVAEOfSeveralCodebooks(TokenizerContract):
    def build(self):
        return dq_vae(GainGate(16, HALF), ResidualQuantizer(EMAVectorQuantizer(16, 8), 2))


class TestDQVAEOfOneGranularity(TokenizerContract):
    read_backs = 0

    def build(self):
        return dq_vae(FixedGate(), VectorQuantizer(32, 8), factors=(4,))


class Prefix(Tokenizer, FixedSize, Adversarial, LengthTargeted):
    """Codes on no grid: four columns of pixels, of which the first few are kept, more for coarser grain.

    Args:
        fault: What it does wrong, if anything.
    """

    def __init__(self, fault: str | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.read = nn.Linear(3 * 8 * 2, 6)
        self.codebook = nn.Parameter(torch.randn(16, 6))
        self.missing = nn.Parameter(torch.randn(4, 6))
        self.paint = nn.Linear(6, 3 * 8 * 2)
        self.unused = nn.Parameter(torch.zeros(2)) if fault == "idle" else None
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(16, max_length=1 if self.fault == "too_long" else 4)

    @property
    def divisor(self) -> int:
        return 2

    @property
    def image_size(self) -> tuple[int, int]:
        return (8, 7) if self.fault == "between" else (8, 8)

    @property
    def last_layer(self) -> Tensor:
        return self.paint.weight.clone() if self.fault == "copied_layer" else self.paint.weight

    def expected_length(self, height: int, width: int) -> float:
        return 9 if self.fault == "impossible" else 2.5

    def encode_batch(self, images: Tensor) -> Codes:
        with torch.no_grad(), contextlib.ExitStack() as stack:
            if self.training and self.fault != "drawn":
                self.eval()
                stack.callback(self.train)
            return self(images).codes

    def decode_batch(self, codes: Codes) -> Tensor:
        starts = codes.lengths.cumsum(0) - codes.lengths
        places = torch.arange(4, device=codes.device).expand(len(codes), -1)
        kept = places < codes.lengths[:, None]
        index = (starts[:, None] + places).clamp(max=codes.ids.numel() - 1)
        vectors = torch.where(kept[..., None], self.codebook[codes.ids[index]], self.missing)
        if self.fault == "mixing":
            vectors = vectors + vectors.mean(0)
        return self._painted(torch.zeros_like(vectors) if self.fault == "blind" else vectors)

    def forward(self, images: Tensor) -> TokenizerOutput:
        if self.fault != "any_size" and tuple(images.shape[2:]) != (8, 8):
            raise UserError(f"images must be 8 × 8, not {tuple(images.shape[2:])}")
        images = images[..., :8, :8] if images.shape[2] >= 8 and images.shape[3] >= 8 else F.interpolate(images, (8, 8))
        if self.fault == "counting":
            self.seen += 1
        columns = self.read(images.unflatten(3, (4, 2)).permute(0, 3, 1, 2, 4).flatten(2))
        if self.fault == "normalized":
            columns = columns - columns.mean((0, 1))
        length = 1 + (images.std((1, 2, 3)) * 8).long() % 4
        if self.training:
            length = torch.randint_like(length, 1, 5)
        ids = torch.cdist(columns.detach().float(), self.codebook).argmin(2)
        kept = torch.arange(4, device=length.device) < length[:, None]
        found = self.codebook[ids]
        passed = columns + (found - columns).detach()
        vectors = torch.where(kept[..., None], passed.float(), self.missing)
        loss = (columns - found.detach()).square().mean() + (columns.detach() - found).square().mean()
        painted = self._painted(vectors)
        if self.fault == "other_pass":
            painted = painted + 1
        return TokenizerOutput(painted, Codes(ids[kept], length), {"quantization": loss + self.seen})

    def _painted(self, vectors: Tensor) -> Tensor:
        return self.paint(vectors).unflatten(2, (3, 8, 2)).permute(0, 2, 3, 1, 4).flatten(3)


class Trusting(Prefix):
    """Decodes whatever it is given."""

    decode = Prefix.decode_batch


class TestATokenizerWithoutAGrid(TokenizerContract):
    def build(self):
        return Prefix()


def test_every_registered_tokenizer_is_held_to_the_contract():
    registered = {component.load() for component in components("tokenizer") if component.distribution == "vltok"}
    held = {type(contract().build()) for contract in TokenizerContract.__subclasses__()}
    assert held - {Prefix} == registered


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("between", "test_it_says_what_its_codes_are"),
        ("too_long", "test_codes_are_what_it_says"),
        ("drawn", "test_encoding_decides_as_in_evaluation_whatever_the_mode"),
        ("counting", "test_evaluation_gives_the_same_again_and_changes_nothing"),
        ("other_pass", "test_a_forward_pass_encodes_and_decodes"),
        ("normalized", "test_images_of_a_batch_do_not_meet"),
        ("mixing", "test_codes_of_any_lengths_decode_in_one_batch"),
        ("blind", "test_other_codes_decode_to_other_images"),
        ("any_size", "test_sizes_that_do_not_fit_are_refused"),
        ("impossible", "test_what_is_asked_of_it_is_possible"),
        ("copied_layer", "test_the_last_layer_gives_the_pixels"),
        ("idle", "test_every_parameter_gets_a_gradient"),
    ],
)
def test_the_contract_finds_a_tokenizer_that_is(fault, test):
    assert_found(TestATokenizerWithoutAGrid, test, lambda: Prefix(fault))


def test_the_contract_finds_a_tokenizer_that_looks_at_no_codes():
    assert_found(TestATokenizerWithoutAGrid, "test_codes_that_do_not_fit_are_refused", Trusting)
