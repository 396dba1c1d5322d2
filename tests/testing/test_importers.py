"""Every registered importer holds the contract, and the contract finds what is broken."""

from pathlib import Path

import pytest
import torch

from tests.io.importers.foreign import llamagen_gpt_state, llamagen_state, minigpt, vq_model
from vltok.errors import UserError
from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.checkpoints import entry
from vltok.io.importers.diffusers import Diffusers
from vltok.io.importers.dynamic_vector_quantization import DynamicVectorQuantization
from vltok.io.importers.llamagen import LlamaGen
from vltok.io.importers.llamagen_gpt import LlamaGenGPT
from vltok.io.importers.net2net import Net2Net
from vltok.io.importers.stack_gpt import StackGPT
from vltok.io.importers.taming_transformers import TamingTransformers
from vltok.registry import components
from vltok.testing import ImporterContract
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gates import FixedGate
from vltok.tokenizers.quantizers import VectorQuantizer

from .broken import assert_found


def state_of(tensors: dict) -> dict:
    return {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}


class TestTamingTransformers(ImporterContract):
    @pytest.fixture(autouse=True)
    def _recorded(self, parity):
        self.tensors, self.config = parity("vqgan")

    def build(self):
        return TamingTransformers()

    def example(self):
        params = {key: self.config[key] for key in ("ddconfig", "n_embed", "embed_dim")}
        return {"model": {"target": "taming.models.vqgan.VQModel", "params": params}}, state_of(self.tensors)


class TestDynamicVectorQuantization(ImporterContract):
    @pytest.fixture(autouse=True)
    def _recorded(self, parity):
        self.tensors, self.config = parity("e2e_dual_feat")

    def build(self):
        return DynamicVectorQuantization()

    def example(self):
        return {"model": {"params": self.config["kwargs"]}}, state_of(self.tensors)


class TestStackGPT(ImporterContract):
    @pytest.fixture(autouse=True)
    def _recorded(self, parity):
        self.tensors, self.config = parity("stackgpt_uncond")

    def build(self):
        return StackGPT()

    def example(self):
        params = {
            "first_stage_config": {"params": {"encoderconfig": {"params": {"ch_mult": [1, 1, 2, 2, 4]}}}},
            "transformer_config": {"params": self.config["transformer"]},
            "permuter_config": {"params": self.config["permuter"]},
        }
        state = {f"transformer.{name}": value for name, value in state_of(self.tensors).items()}
        return {"model": {"params": params}}, {**state, "first_stage_model.quantize.weight": torch.rand(3)}


class TestNet2Net(ImporterContract):
    @pytest.fixture(autouse=True)
    def _recorded(self, parity):
        self.tensors, self.config = parity("vqgan")

    def build(self):
        return Net2Net()

    def example(self):
        return minigpt(state_of(self.tensors), self.config, classes=5)


class TestDiffusers(ImporterContract):
    def build(self):
        return Diffusers()

    def example(self):
        torch.manual_seed(0)
        model = vq_model()
        return dict(model.config), model.state_dict()


class TestLlamaGen(ImporterContract):
    def build(self):
        return LlamaGen()

    def example(self):
        return {"codebook_l2_norm": True}, llamagen_state()


class TestLlamaGenGPT(ImporterContract):
    def build(self):
        return LlamaGenGPT()

    def example(self):
        return {"n_head": 4, "block_size": 4}, llamagen_gpt_state()


class Plain(Importer):
    """Checkpoints of a project that is vltok in other words.

    Args:
        fault: What it does wrong, if anything.
    """

    def __init__(self, fault: str | None = None) -> None:
        self.fault = fault

    def recognises(self, state):
        return self.fault == "credulous" or all(name.startswith("ours.") for name in state)

    def convert(self, config, state, folder) -> Imported:
        size = entry(config, "codes")
        names = {f"ours.{name}": name for name in plain(size).state_dict()}
        strange = [name for name in state if name not in names]
        if strange and self.fault != "silent":
            raise UserError(f"there is no tensor {strange[0]}")
        renamed = {names[name]: tensor for name, tensor in state.items() if name in names}
        if self.fault == "rounding":
            renamed = {name: tensor.round() for name, tensor in renamed.items()}
        if self.fault == "losing":
            renamed["project_in.bias"] = renamed["project_out.bias"][:4]
        if self.fault == "emptying":
            state.clear()
        arguments = {
            "encoder": {
                "class_path": "patch",
                "init_args": {"factors": [4], "width": 8, "blocks": 1, "channels": 8},
            },
            "gate": "fixed",
            "quantizer": {"class_path": "vq", "init_args": {"size": size + (self.fault == "larger"), "dimension": 4}},
            "decoder": {
                "class_path": "pixel-shuffle",
                "init_args": {"factor": 4, "channels": 8, "width": 8, "blocks": 1},
            },
        }
        return Imported({"class_path": "dq-vae", "init_args": arguments}, renamed, ())


def plain(size: int) -> DQVAE:
    return DQVAE(
        PatchEncoder([4], width=8, blocks=1, channels=8),
        FixedGate(),
        VectorQuantizer(size, 4),
        PixelShuffleDecoder(4, channels=8, width=8, blocks=1),
    )


class TestPlain(ImporterContract):
    def build(self):
        return Plain()

    def example(self):
        torch.manual_seed(0)
        state = plain(8).state_dict()
        return {"codes": 8}, {f"ours.{name}": torch.rand_like(value) for name, value in state.items()}


def test_every_registered_importer_is_held_to_the_contract():
    registered = {component.load() for component in components("importer") if component.distribution == "vltok"}
    held = {type(contract().build()) for contract in ImporterContract.__subclasses__()}
    assert held - {Plain} == registered


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("larger", "test_what_it_gives_can_be_built"),
        ("rounding", "test_values_stay"),
        ("losing", "test_nothing_is_lost_that_is_not_named"),
        ("emptying", "test_what_it_is_given_stays_as_it_is"),
        ("silent", "test_a_tensor_that_it_does_not_know_is_named"),
        ("credulous", "test_it_recognises_its_own_alone"),
    ],
)
def test_the_contract_finds_an_importer_that_is(fault, test, tmp_path: Path):
    assert_found(TestPlain, test, lambda: Plain(fault), tmp_path)
