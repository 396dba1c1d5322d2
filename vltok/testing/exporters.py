"""What every exporter to another library must hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from vltok.interfaces import Prior, Tokenizer
from vltok.io.bundle_files import read_bundle
from vltok.io.bundles import save_prior, save_tokenizer
from vltok.io.exporters.base import Exporter


class ExporterContract(ABC):
    """Tests of an exporter, which a test class inherits."""

    @abstractmethod
    def build(self) -> Exporter:
        """The exporter."""

    @abstractmethod
    def example(self) -> Tokenizer | Prior:
        """A small tokenizer or prior that the library has a counterpart of, with the same weights in every call."""

    def written(self, folder: Path) -> Tokenizer | Prior:
        """Write the example into a folder, from a bundle beside it; the example."""
        model, bundle = self.example(), folder.with_name(f"{folder.name}-bundle")
        if isinstance(model, Tokenizer):
            save_tokenizer(model, bundle)
        else:
            save_prior(model, bundle, tokenizer="0" * 64)
        folder.mkdir(exist_ok=True)
        self.build().write(model, read_bundle(bundle, None)[1], folder)
        return model

    def test_it_says_what_it_takes(self):
        takes = {"tokenizer": Tokenizer, "prior": Prior}[self.build().kind]
        assert isinstance(self.example(), takes)

    def test_the_same_model_gives_the_same_files(self, tmp_path):
        found = []
        for name in ("first", "second"):
            self.written(tmp_path / name)
            files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
            found.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
        assert found[0] and found[0] == found[1]

    def test_weights_stay_as_they_are(self, tmp_path):
        kept, written = self.example().state_dict(), self.written(tmp_path / "out").state_dict()
        assert kept.keys() == written.keys() and all(written[name].equal(value) for name, value in kept.items())
