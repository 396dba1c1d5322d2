"""What every importer of another project's checkpoints must hold."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from vltok.errors import UserError
from vltok.io.importers.base import Imported, Importer
from vltok.registry import interface_of
from vltok.verbs.build import build


class ImporterContract(ABC):
    """Tests of an importer, which a test class inherits."""

    @abstractmethod
    def build(self) -> Importer:
        """The importer."""

    @abstractmethod
    def example(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A small checkpoint of the project: its configuration, and its tensors by name, with values that differ."""

    def test_what_it_gives_can_be_built(self, tmp_path):
        imported = self._convert(tmp_path)
        build(imported.config).load_state_dict(imported.state, strict=True)

    def test_it_says_what_the_model_is(self, tmp_path):
        imported = self._convert(tmp_path)
        assert isinstance(build(imported.config), interface_of(imported.kind))

    def test_values_stay(self, tmp_path):
        """A few may be added, such as thresholds that the checkpoint does not hold."""
        _, state = self.example()
        imported = self._convert(tmp_path)
        values = torch.cat([tensor.flatten().double() for tensor in state.values()])
        found = torch.cat([tensor.flatten().double() for tensor in imported.state.values()])
        assert torch.isin(found, values).double().mean() > 0.99

    def test_nothing_is_lost_that_is_not_named(self, tmp_path):
        _, state = self.example()
        imported = self._convert(tmp_path)
        assert set(imported.dropped) <= set(state)
        kept = [name for name in state if name not in imported.dropped and state[name].numel()]
        # of a table that is longer than what is needed the end may be cut off
        first = torch.stack([state[name].flatten()[0].double() for name in kept])
        found = torch.cat([tensor.flatten().double() for tensor in imported.state.values()])
        lost = [name for name, there in zip(kept, torch.isin(first, found).tolist(), strict=True) if not there]
        assert not lost, f"lost without a word: {', '.join(lost)}"

    def test_what_it_is_given_stays_as_it_is(self, tmp_path):
        config, state = self.example()
        kept_config, kept = copy.deepcopy(config), {name: tensor.clone() for name, tensor in state.items()}
        self.build().convert(config, state, tmp_path)
        assert config == kept_config
        assert state.keys() == kept.keys() and all(state[name].equal(tensor) for name, tensor in kept.items())

    def test_a_tensor_that_it_does_not_know_is_named(self, tmp_path):
        config, state = self.example()
        strange = {**state, "strange.weight": torch.zeros(3)}
        try:
            assert "strange.weight" in self.build().convert(config, strange, tmp_path).dropped
        except UserError as error:
            assert "strange.weight" in str(error)

    def test_it_recognises_its_own_alone(self, tmp_path):
        _, state = self.example()
        strange = {f"strange.{name}": tensor for name, tensor in state.items()}
        assert self.build().recognises(state) and not self.build().recognises(strange)
        with pytest.raises(UserError):
            self.build().convert({}, strange, tmp_path)

    def test_files_are_read(self, tmp_path):
        config, state = self.example()
        expected = self._convert(tmp_path)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        torch.save({"state_dict": state}, tmp_path / "last.ckpt")
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, tmp_path / "last.safetensors")
        for name in ("last.ckpt", "last.safetensors"):
            imported = self.build().read(tmp_path / name, tmp_path / "config.yaml")
            assert imported.config == expected.config and imported.state.keys() == expected.state.keys()
            assert all(imported.state[name].equal(tensor) for name, tensor in expected.state.items())

    def _convert(self, folder: Path) -> Imported:
        return self.build().convert(*self.example(), folder)
