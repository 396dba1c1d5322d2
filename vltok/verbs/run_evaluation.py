"""The evaluation of a run of `vltok ablate`: what 'vltok evaluate' is asked for, and whether it has been done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vltok.errors import UserError
from vltok.evaluation.differences import ABSENT, differences
from vltok.evaluation.records import Record
from vltok.evaluation.tables import read_numbers
from vltok.io import yaml_text
from vltok.io.bundles import fingerprint, prior_fingerprint
from vltok.verbs.evaluation_options import EvaluationOptions
from vltok.verbs.run_folder import RunFolder

_OWN = ("tokenizer", "prior", "codec", "quality", "out", "config", "trust")


@dataclass(frozen=True)
class RunEvaluation:
    """What a run is asked for once it is trained.

    Attributes:
        run: The run.
        folder: What receives the evaluation.
        kind: What it trains: `tokenizer` or `prior`.
        arguments: Those of `vltok evaluate`.
        options: What they mean, with every default.
    """

    run: RunFolder
    folder: Path
    kind: str
    arguments: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether the bundle that is there has been measured with these options."""
        metrics, config = self.folder / "metrics.json", self.folder / "config.yaml"
        if not (metrics.is_file() and config.is_file()):
            return False
        found = yaml_text.load(config.read_text(encoding="utf-8"))
        # the run may have been moved
        places = {"out": None, self.kind: None}
        hashed = {"tokenizer": fingerprint, "prior": prior_fingerprint}[self.kind](self.run.bundle)
        different = differences({**found, **places}, {**self.options, **places})
        # an option that came later, and is not given, changes nothing
        same = all(pair == (ABSENT, None) for pair in different.values())
        return same and self.record().subject["fingerprint"] == hashed

    def record(self) -> Record:
        """What it measured."""
        return Record.read(self.folder)

    def images(self) -> dict[str, list[float]]:
        """What it measured of each picture; nothing of a prior, which has none."""
        path = self.folder / "images.csv"
        return read_numbers(path) if path.is_file() else {}


def plan_evaluation(
    options: Mapping[str, Any], recipe: Mapping[str, Any], run: RunFolder, rate: str | None = None, trust: bool = False
) -> RunEvaluation:
    """The evaluation of a run: a tokenizer is measured on the held-out pictures of its own recipe.

    Args:
        options: Those of `vltok evaluate`, by name; what they say of `data` is laid over the recipe's.
        recipe: The run's resolved recipe.
        run: Where it is.
        rate: At which it is measured; its own by default.
        trust: Whether its bundles may name more than registered components.

    Raises:
        UserError: The options are wrong, or the run leaves nothing to evaluate.
    """
    for key in options:
        if key.partition(".")[0] in _OWN:
            raise UserError(f"evaluate: {key} is set by the table itself: leave it out")
    kind = next((kind for kind in ("tokenizer", "prior") if kind in recipe["model"].get("init_args", {})), None)
    if kind is None:
        raise UserError(f"evaluate: model {recipe['model']['class_path']} trains neither a tokenizer nor a prior")
    folder = run.path / "evaluation"
    if rate is not None:
        options = {**options, "rate": rate}
        folder = run.path / "rates" / rate.replace(":", "_")  # which Windows knows of drives
    arguments = [f"--{kind}={run.bundle}", f"--out={folder}"]
    if kind == "tokenizer":
        arguments.append(f"--data={json.dumps(recipe['data'])}")
    arguments += ["--trust"] if trust else []
    for key, value in options.items():
        # the names of options have dashes, those of what they build have underscores
        option = key if "." in key else key.replace("_", "-")
        arguments.append(f"--{option}={value if isinstance(value, str) else json.dumps(value)}")
    try:
        text = EvaluationOptions.of_arguments(arguments).text()
    except UserError as error:
        raise UserError(f"evaluate: {error}") from error
    return RunEvaluation(run, folder, kind, tuple(arguments), yaml_text.load(text))
