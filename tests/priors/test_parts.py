"""Priors are built of parts: which transformers they take, and how recipes, options and bundles of before name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import vltok
from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.interfaces import Prior
from vltok.io.recipes import parse, recipe_parser
from vltok.nn.attention import Packing
from vltok.nn.llama import Llama
from vltok.nn.sequence_model import Cursors, KeyValueCache, SequenceModel
from vltok.nn.transformer import Transformer
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.raster_scan import RasterScan
from vltok.priors.sequence import SequencePrior
from vltok.testing import PriorContract

from ..distributions import installed

SPEC = {"codebook_size": 8, "factors": [4, 8], "regions": [2, 2]}
BEFORE = {"width": 8, "heads": 2, "position_layers": 1, "content_layers": 2}


class Means(SequenceModel):
    """Each state is a linear function of the mean of those so far."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.mix = nn.Linear(width, width)

    def forward(self, hidden, packing: Packing):
        sums = torch.cat([hidden.new_zeros(1, self.width), hidden.cumsum(0)])
        starts = packing.cu_seqlens[:-1].long()[packing.images]
        return self._mixed((sums[1:] - sums[starts]) / (packing.steps + 1)[:, None])

    def cache(self, batch: int, longest: int) -> KeyValueCache:
        return KeyValueCache([self.mix.weight.new_zeros(batch, self.width)])

    @torch.no_grad()
    def step(self, hidden, cache: KeyValueCache, cursors: Cursors):
        (sums,) = cache.layers
        cache.layers[0] = sums.where(cursors.steps[:, None] > 0, 0.0) + hidden
        return self._mixed(cache.layers[0] / (cursors.steps + 1)[:, None])

    def _mixed(self, means):
        return self.mix(means.to(self.mix.weight.dtype))


class TestPriorOfAnotherSequenceModel(PriorContract):
    def build(self) -> Prior:
        return RasterScan(CodeSpec(2, (2, 1), (1, 2)), Means(), Transformer(8, 2, 1))


PLUGIN = f"from {__name__} import Means as Other\nclass Means(Other): pass\n"


@pytest.fixture
def parser():
    parser = recipe_parser("test")
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Prior, "prior")
    return parser


def shapes(arguments: Any, *names: str) -> list[tuple[int, int, int, float]]:
    """What transformers are made with."""
    made = [vars(getattr(arguments, name)) for name in names]
    return [tuple(each[key] for key in ("width", "heads", "layers", "dropout")) for each in made]


DQ = ("position_transformer", "content_transformer")


def test_a_recipe_names_its_parts(parser, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    written = {"spec": SPEC, "position_transformer": {"width": 64, "heads": 4, "layers": 2}, "dropout": 0.3}
    recipe.write_text(yaml.safe_dump({"prior": {"class_path": "dq-transformer", "init_args": written}}))
    given = [f"--config={recipe}", "--prior.content_transformer.layers=5"]
    assert shapes(parse(parser, given).prior.init_args, *DQ) == [(64, 4, 2, 0.3), (64, 4, 5, 0.3)]
    wider = parse(parser, [*given, "--prior.position_transformer.width", "32"]).prior.init_args
    assert shapes(wider, *DQ) == [(32, 4, 2, 0.3), (32, 4, 5, 0.3)]


@pytest.mark.parametrize(
    ("name", "before", "transformers"),
    [
        ("dq-transformer", {"position_layers": 3, "content_layers": 5}, DQ),
        ("raster-scan", {"position_layers": 3, "content_layers": 5}, DQ),
        ("global-local", {"global_layers": 3, "local_layers": 5}, ("global_transformer", "local_transformer")),
        ("fixed-raster", {"layers": 3}, ("transformer",)),
    ],
)
def test_arguments_of_before_go_on_working(
    parser, tmp_path: Path, name: str, before: dict[str, int], transformers: tuple[str, ...]
) -> None:
    spec = {**SPEC, "factors": [8]} if name == "fixed-raster" else SPEC
    others = {"width": 16, "heads": 2, "checkpointing": True, "dropout": 0.2}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"prior": {"class_path": name, "init_args": {**spec, **others, **before}}}))
    arguments = parse(parser, ["--config", str(recipe)]).prior.init_args
    expected = [(16, 2, count, 0.2) for count in before.values()]
    assert shapes(arguments, *transformers) == expected and arguments.spec.codebook_size == 8
    assert getattr(arguments, transformers[0]).checkpointing
    options = [f"--prior.{key}={value}" for key, value in {**spec, **others, **before}.items()]
    assert shapes(parse(parser, ["--prior", name, *options]).prior.init_args, *transformers) == expected
    narrower = parse(parser, ["--config", str(recipe), "--prior.width", "8"]).prior.init_args
    assert {getattr(narrower, each).width for each in transformers} == {8}
    over = tmp_path / "over.yaml"
    over.write_text("prior.width: 8\nprior.heads: 1\n")
    narrower = parse(parser, ["--config", str(recipe), "--config", str(over)]).prior.init_args
    assert {(getattr(narrower, each).width, getattr(narrower, each).heads) for each in transformers} == {(8, 1)}


def test_a_prior_may_be_named_after_its_arguments_of_before(parser, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    arguments = {f"prior.{key}": value for key, value in {**SPEC, **BEFORE}.items()}
    recipe.write_text(yaml.safe_dump({**arguments, "prior": "raster-scan"}, sort_keys=False))
    assert shapes(parse(parser, ["--config", str(recipe)]).prior.init_args, *DQ) == [(8, 2, 1, 0.1), (8, 2, 2, 0.1)]


def test_what_is_said_of_a_part_counts_beside_an_argument_of_before(parser) -> None:
    arguments = {**SPEC, **BEFORE, "content_transformer": {"heads": 4}}
    given = [
        f"--prior={yaml.safe_dump({'class_path': 'dq-transformer', 'init_args': arguments}, default_flow_style=True)}"
    ]
    assert shapes(parse(parser, given).prior.init_args, *DQ) == [(8, 2, 1, 0.1), (8, 4, 2, 0.1)]


def test_another_prior_keeps_what_both_had_an_argument_for(parser, tmp_path: Path) -> None:
    base, over = tmp_path / "base.yaml", tmp_path / "over.yaml"
    parts = {"position_transformer": {"width": 24, "heads": 3, "layers": 1}, "spec": SPEC, "dropout": 0.0}
    base.write_text(yaml.safe_dump({"prior": {"class_path": "dq-transformer", "init_args": parts}}))
    over.write_text("prior: {class_path: global-local, init_args: {width: 12, global_layers: 1, local_layers: 2}}\n")
    arguments = parse(parser, ["--config", str(base), "--config", str(over)]).prior.init_args
    assert shapes(arguments, "global_transformer", "local_transformer") == [(12, 3, 1, 0.0), (12, 3, 2, 0.0)]
    assert arguments.spec.codebook_size == 8
    options = ["--config", str(base), "--prior", "global-local", "--prior.global_transformer.width=6"]
    arguments = parse(parser, options).prior.init_args
    assert shapes(arguments, "global_transformer", "local_transformer") == [(6, 3, 18, 0.0), (6, 3, 6, 0.0)]


def test_another_packages_transformer_takes_the_place(parser, tmp_path: Path) -> None:
    arguments = {"spec": SPEC, "position_transformer": "means", "content_transformer": {**TINY}}
    with installed(tmp_path, "means", {"transformer": {"means": "means_module:Means"}}, PLUGIN):
        prior = vltok.build({"class_path": "dq-transformer", "init_args": arguments})
        assert type(prior.position_transformer).__name__ == "Means" and prior.content_transformer.width == 8
        vltok.save_prior(prior, tmp_path / "bundle", "0" * 64)
        config = yaml.safe_load((tmp_path / "bundle" / "config.yaml").read_text())
        assert config["prior"]["init_args"]["position_transformer"]["class_path"] == "means"
        assert {"means", "vltok"} == {each["distribution"] for each in config["requires"]}
        loaded = vltok.load_prior(tmp_path / "bundle")
        assert torch.equal(loaded.position_transformer.mix.weight, prior.position_transformer.mix.weight)


TINY = {"heads": 2, "layers": 1}


def test_a_prior_made_in_python_is_written_down(tmp_path: Path) -> None:
    prior = DQTransformer(CodeSpec(8, (4, 8), (2, 2)), Transformer(8, 2, 1), Transformer(8, 2, 1))
    vltok.save_prior(prior, tmp_path / "bundle", "0" * 64)
    assert vltok.load_prior(tmp_path / "bundle").spec == prior.spec


def test_transformers_of_two_widths_are_refused() -> None:
    with pytest.raises(UserError, match="position_transformer has 8 and content_transformer has 16"):
        DQTransformer(CodeSpec(8, (8,), (2, 2)), Transformer(8, 2, 1), Transformer(16, 2, 1))


def test_weights_of_other_sequence_models_are_kept() -> None:
    means = Means()
    weight = means.mix.weight.clone()
    prior = DQTransformer(CodeSpec(8, (8,), (2, 2)), means, Transformer(8, 2, 1))
    assert torch.equal(means.mix.weight, weight)
    assert prior.content_transformer.blocks[0].query_key_value.weight.std() < 0.03


SMALL = {"width": 16, "heads": 2, "layers": 1}


@pytest.mark.parametrize(
    ("spec", "columns", "allowed"),
    [
        (CodeSpec(8, (4,), (2, 3)), 2, "must be 3, or left out"),
        (CodeSpec(8, (4,), None), 3, "must be left out, since they have any grid or none"),
        (CodeSpec(8, (), None, max_length=6), 3, "must be left out, since they have any grid or none"),
    ],
)
def test_a_transformer_of_another_grid_is_refused(spec: CodeSpec, columns: int, allowed: str) -> None:
    with pytest.raises(UserError, match=rf"transformer\.columns is {columns}, but for these codes {allowed}"):
        SequencePrior(spec, Llama(columns, **SMALL))


def test_a_transformer_of_the_same_grid_is_taken() -> None:
    assert SequencePrior(CodeSpec(8, (4,), (2, 3)), Llama(3, **SMALL)).transformer.columns == 3


def test_a_transformer_of_one_grid_does_not_walk_over_several_granularities() -> None:
    with pytest.raises(UserError, match=r"content_transformer\.columns is 3, but must be left out here: .*'sequence'"):
        DQTransformer(CodeSpec(8, (4, 8), (2, 3)), Llama(**SMALL), Llama(3, **SMALL))
