"""Every registered exporter holds the contract."""

import torch
from safetensors.torch import load_file

from tests.io.importers.foreign import vq_model
from vltok.io.exporters.diffusers import Diffusers
from vltok.io.importers.diffusers import Diffusers as DiffusersImporter
from vltok.registry import components
from vltok.testing import ExporterContract
from vltok.verbs.build import build


class TestDiffusers(ExporterContract):
    def build(self):
        return Diffusers()

    def example(self):
        torch.manual_seed(0)
        model = vq_model()
        imported = DiffusersImporter().convert(dict(model.config), model.state_dict(), None)
        tokenizer = build(imported.config)
        tokenizer.load_state_dict(imported.state)
        return tokenizer

    def test_the_files_are_those_of_the_library(self, tmp_path):
        self.written(tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "config.json",
            "diffusion_pytorch_model.safetensors",
        ]
        torch.manual_seed(0)
        original = vq_model().state_dict()
        written = load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
        assert written.keys() == original.keys() and all(written[name].equal(original[name]) for name in written)


def test_every_registered_exporter_is_held_to_the_contract():
    registered = {component.load() for component in components("exporter") if component.distribution == "vltok"}
    assert registered == {contract().build().__class__ for contract in ExporterContract.__subclasses__()} & registered
