"""What `vltok evaluate` is asked for."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pytest

from tests.cli.exports import PRIOR, write_bundle, write_prior
from vltok.drawing.config import SamplingConfig, SamplingOptions, every_option, options_for
from vltok.errors import UserError
from vltok.io.bundles import fingerprint
from vltok.priors.dq_transformer import DQTransformer
from vltok.verbs.evaluation_options import EvaluationOptions


@dataclass(frozen=True)
class EagerSampling(SamplingConfig):
    """Options of a plug-in.

    Attributes:
        eagerness: How eager it draws.
    """

    eagerness: float = 0.5


@dataclass(frozen=True)
class PlainSampling(SamplingOptions):
    """Options of a plug-in that draws no positions."""

    sweeps: int = 3


class Eager(DQTransformer):
    """A prior of a plug-in."""

    sampling = EagerSampling


def test_a_prior_s_own_options_are_options_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "tokenizer")
    config = {**PRIOR, "class_path": f"{__name__}.Eager"}
    write_prior(tmp_path / "prior", config, fingerprint(tmp_path / "tokenizer"))
    given = ["--prior", "prior", "--trust", "--sampling.eagerness", "0.75", "--sampling.top_k", "9", "--out", "out"]
    asked = EvaluationOptions.of_arguments(given)
    sampling = asked.build()["sampling"]
    assert (sampling.eagerness, sampling.top_k) == (0.75, 9)
    Path("config.yaml").write_text(asked.text())
    again = EvaluationOptions.of_arguments(["--config", "config.yaml", "--trust", "--out", "out"])
    assert asdict(again.build()["sampling"]) == asdict(sampling)


def test_a_recipe_that_names_no_prior_is_refused_as_such(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("prior: [5]")
    with pytest.raises(UserError, match="prior must be"):
        EvaluationOptions.of_arguments(["--config", str(tmp_path / "wrong.yaml"), "--out", str(tmp_path / "out")])


def test_options_that_a_prior_does_not_have_are_known_to_be_refused() -> None:
    assert every_option(SamplingOptions) is SamplingConfig and every_option(EagerSampling) is EagerSampling
    every = every_option(PlainSampling)
    assert {field.name for field in fields(every)} == {field.name for field in fields(SamplingConfig)} | {"sweeps"}
    assert options_for(PlainSampling, "this prior", every(sweeps=5, top_k=2)) == PlainSampling(top_k=2, sweeps=5)
    with pytest.raises(UserError, match="max_codes is 9, but this prior has no such option"):
        options_for(PlainSampling, "this prior", every(max_codes=9))
