"""What the tests of priors that read texts or embeddings share: the way from pictures that have such to a prior."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vltok.cli.main import main

from .exports import write_bundle, write_pictures


def recipe(prior: str, reads: str) -> str:
    """A recipe of seconds, as YAML, of a prior of two transformers.

    Args:
        prior: Its name.
        reads: The argument that says what it reads.
    """
    return f"""
seed_everything: 5
model:
  class_path: vltok.training.PriorTraining
  init_args:
    prior:
      class_path: {prior}
      init_args:
        position_transformer: {{width: 16, heads: 2, layers: 1}}
        content_transformer: {{layers: 1}}
        {reads}
        label_dropout: 0.2
    learning_rate: 1.0e-2
data: {{class_path: codes, init_args: {{root: codes/train, validation: codes/val, batch_size: 8, workers: 0}}}}
trainer: {{accelerator: cpu, max_steps: 4, num_sanity_val_steps: 0}}
"""


def pictures_that_have(kind: str, ending: str) -> list[str]:
    """Options of the pictures that `write_project` wrote, with their texts or embeddings."""
    data = {"root": "pictures", "size": 16, "workers": 0, "val_share": 0.3, kind: ending}
    return ["--data=folder", *(f"--data.{key}={value}" for key, value in data.items())]


def write_project(folder: Path, name: str, recipe: str, data: Sequence[str], write: Callable[[Path], object]) -> Path:
    """A tokenizer, codes of pictures, and a fitted prior.

    Args:
        folder: Where to write them.
        name: That of the recipe, and of the run.
        recipe: The prior's.
        data: Options of the pictures.
        write: Writes what a picture has beside it.
    """
    write_bundle(folder / "tokenizer")
    write_pictures(folder / "pictures", 30)
    for picture in folder.glob("pictures/*/*.png"):
        write(picture)
    (folder / f"{name}.yaml").write_text(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for split in ("train", "val"):
            assert main(["tokenize", "--tokenizer=tokenizer", f"--split={split}", f"--out=codes/{split}", *data]) == 0
        assert main(["fit", f"--config={name}.yaml"]) == 0
    return folder
