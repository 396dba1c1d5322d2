"""The folder of a run: its places, and which of two runs stays where one replaces the other.

```
runs/quickstart/
  config.yaml           the recipe with every default and override: 'vltok fit --config' reads it again
  metrics.csv           what was logged while it trained, one column a figure
  logs/                 what TensorBoard reads, or other loggers have written
  checkpoints/last.ckpt where --resume goes on, and beside it the checkpoint before it, in case that one is damaged
  bundle/               the trained tokenizer or prior, for vltok.load_tokenizer or vltok.load_prior
  metrics.json          what was measured at the end
  reconstructions.png   of a tokenizer: held-out pictures, their reconstructions and coding maps
  samples.png           of a prior: pictures that it drew, and their coding maps
```
"""

import shutil
from pathlib import Path

from vltok.errors import UserError
from vltok.files import HELD, LOCK, move
from vltok.io.curve_files import CURVES

#: What 'vltok fit' takes besides the keys of a recipe.
OPTIONS = {
    "--config": "a recipe; options after it override what it says",
    "--out": "the run folder; runs/NAME of the recipe by default",
    "--resume": "go on with the run in the folder: max_steps and max_epochs may be given anew; where and how it is "
    "computed, watched and validated counts for this time; what would train something else is refused",
    "--overwrite": "replace the run in the folder, which comes back if the new one fails before its first checkpoint",
    "--start": "begin with the weights of a bundle, to fine-tune it: it is built as it was, but for what options after "
    "--config change of it; a recipe that says 'start' describes all of the model itself",
    "--trust": "let the bundles of --start and of the tokenizer whose codes are modelled run any Python "
    "code that they name, and download them",
    "--seed_everything": "sets the random numbers",
}


class RunFolder:
    """The places of a run.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.curves = path / CURVES
        self.checkpoints = path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.previous_checkpoint = self.checkpoints / "last.previous.ckpt"
        self.bundle = path / "bundle"
        self.metrics = path / "metrics.json"
        self.picture = path / "reconstructions.png"
        self.samples = path / "samples.png"
        # where an earlier run waits until the new one has a checkpoint, and while it is moved there, or back
        self.replaced, self.replacing = path / ".replaced", path / ".replacing"

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint; a process that was killed may have left only the one before the last."""
        return self.last_checkpoint.is_file() or self.previous_checkpoint.is_file()

    def check(self, resume: bool, overwrite: bool) -> None:
        """See that a run may start here, or go on; changes nothing.

        Raises:
            UserError: The folder holds a run or something else, or there is nothing to go on with.
        """
        if resume and overwrite:
            raise UserError("--resume goes on with a run and --overwrite starts it anew: give one of them")
        if resume and not self.resumable:
            raise UserError(f"--resume: there is no {self.last_checkpoint} to go on with")
        if resume and not self.config.is_file():
            raise UserError(f"--resume: there is no {self.config}, which says what is trained")
        if resume or not self.path.exists():
            return
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} <= {LOCK, HELD}:
            return
        if not self.begun:
            raise UserError(f"--out '{self.path}' holds something else than a run; it is left as it is: name another")
        if not overwrite:
            state = "a finished run" if self.metrics.is_file() else "a run that was started"
            choices = "go on with it by --resume, or replace it by --overwrite"
            if not self.resumable:
                choices = "it has no checkpoint for --resume; replace it by --overwrite"
            raise UserError(f"'{self.path}' holds {state}: {choices}")

    @property
    def begun(self) -> bool:
        """Whether a run has been started here, even if it was killed while it took the place of another."""
        return self.config.is_file() or self.replaced.exists() or self.replacing.exists()

    def own_recipe(self) -> Path:
        """The recipe of the run that goes on: that which `settle` keeps.

        Raises:
            UserError: There is none.
        """
        replaced = self.replaced if self.replaced.exists() and not self.resumable else self.replacing
        kept = next(filter(Path.is_file, (replaced / self.config.name, self.config)), None)
        if kept is None:
            raise UserError(
                f"--resume: there is no {self.config}, which says what is trained: is --out the folder of a run?"
            )
        return kept

    def set_aside(self) -> None:
        """Put away what an earlier run left."""
        places = [place for place in self._places() if place.exists()]
        if places:
            try:
                self.replacing.mkdir()
                for place in places:
                    move(place, self.replacing / place.name)
                move(self.replacing, self.replaced)
            except OSError:
                self.settle()
                raise

    def settle(self) -> bool:
        """Of an earlier run and the one that shall replace it, keep one, wherever a process was killed between them.

        The new one is kept once it has a checkpoint. Until then the earlier one comes back.

        Returns:
            Whether the earlier one has come back.
        """
        if self.replaced.exists():
            if self.resumable:
                self.forget_replaced()
                return False
            self.remove()
            move(self.replaced, self.replacing)
        if not self.replacing.exists():
            return False
        for place in self.replacing.iterdir():
            move(place, self.path / place.name)
        self.replacing.rmdir()
        return True

    def remove(self) -> None:
        """Take away what this run left."""
        for place in self._places():
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)

    def forget_replaced(self) -> None:
        """Remove the earlier run."""
        shutil.rmtree(self.replaced, ignore_errors=True)

    def _places(self) -> tuple[Path, ...]:
        logs = self.path / "logs"
        files = (self.config, self.curves, self.metrics, self.picture, self.samples)
        return (logs, self.checkpoints, self.bundle, *files)
