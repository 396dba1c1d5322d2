"""What the tests of texts share: their commands, and where and how these run."""

import re
import shlex
import shutil
from pathlib import Path

import skimage.data
from PIL import Image

from vltok.cli.main import main
from vltok.io.bundles import fingerprint

from .cli.exports import PRIOR, write_bundle, write_prior

ROOT = Path(__file__).parents[1]

#: Appended to a training, so that it takes seconds: an option given twice counts the second time.
SMALL = {
    "recipes/quickstart.yaml": "--model.tokenizer.encoder.width=32 --model.tokenizer.decoder.width=32",
    "recipes/quickstart_sizes.yaml": (
        "--model.tokenizer.encoder.width=32 --model.tokenizer.decoder.width=32 --data.train_crops=40 --data.val_crops=8"
    ),
    "recipes/imagenet_dq.yaml": (
        "--model.tokenizer.encoder.width=32 --model.tokenizer.encoder.blocks=1 --model.tokenizer.encoder.channels=32 "
        "--model.tokenizer.gate.channels=32 --model.tokenizer.quantizer.dimension=32 "
        "--model.tokenizer.decoder.width=32 --model.tokenizer.decoder.blocks=1 --model.tokenizer.decoder.channels=32 "
        "--model.discriminator.width=8 --model.perceptual none --data.workers=0"
    ),
    "recipes/quickstart_prior.yaml": "--model.prior.codebook_size=300 --model.prior.width=24",
    "recipes/quickstart_sizes_prior.yaml": "--model.prior.width=24",
}
ONE_STEP = "--trainer.max_steps=1 --trainer.limit_val_batches=1 --trainer.accelerator=cpu --trainer.precision=32-true "
FEW = "--data.train_crops=8 --data.val_crops=8"
ON_IMAGES = "--model.calibration_batches=1 --data.size=64 --data.batch_size=2 "


def blocks_of(text: str, language: str) -> list[str]:
    """The blocks of a language in a text of Markdown."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands_of(block: str) -> list[str]:
    """The commands of a block, without what is said of them."""
    return [line.partition(" #")[0].strip() for line in block.splitlines() if line.strip()]


def make_project(folder: Path, pictures: int = 8) -> Path:
    """A folder as a reader has it: the recipes, some pictures, a trained tokenizer."""
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    (folder / "pictures").mkdir()
    photographs = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    for index in range(pictures):
        photograph = Image.fromarray(photographs[index % 4]).resize((90, 72))
        photograph.rotate(45 * index).save(folder / "pictures" / f"{index}.jpg")
    write_bundle(folder / "runs" / "quickstart" / "bundle")
    return folder


def add_prior(folder: Path) -> None:
    """To such a folder, a prior on the codes of its tokenizer, and a photograph beside the others."""
    tokenizer = folder / "runs" / "quickstart" / "bundle"
    write_prior(folder / "runs" / "quickstart_prior" / "bundle", PRIOR, fingerprint(tokenizer))
    shutil.copytree(tokenizer, folder / "runs" / "quickstart_prior" / "tokenizer")
    shutil.copy(folder / "pictures" / "0.jpg", folder / "photo.jpg")


def run(command: str) -> None:
    """Run a command as it is written, but so that it takes seconds."""
    recipe = next(iter(re.findall(r"--config (\S+)", command)), None)
    if recipe is not None:
        small = "" if "--start" in command else SMALL[recipe]
        on_images = ON_IMAGES.replace("--data.size=64", "") if "sizes" in recipe else ON_IMAGES
        command = f"{command} {small} {ONE_STEP} {'' if 'prior' in recipe else on_images}"
    if recipe == "recipes/quickstart.yaml" and "--data " not in command:
        command = f"{command} {FEW}"
    if "_crops" in command and FEW not in command:
        command = re.sub("_crops [0-9]+", "_crops 40", command)
        command = command if "--data.size" in command else f"{command} --data.size=64"
    if command.startswith("vltok ablate "):
        _, *others = (row for row in sorted(Path(command.split()[2]).glob("*.yaml")) if row.name != "table.yaml")
        for row in others:
            row.unlink()
        small = SMALL["recipes/quickstart_prior.yaml"]
        if "prior" not in command:
            small = f"{SMALL['recipes/quickstart.yaml']} {ON_IMAGES} {FEW}"
        command = f"{command.replace(' 0 1 2', ' 0')} {small} {ONE_STEP}"
    if command.startswith("vltok evaluate "):
        command = f"{command} --data.val_crops=8"
    if command.startswith("vltok rate "):
        command = f"{command} --training-pictures 8 --pictures 4 --points 2"
    assert main(shlex.split(command)[1:]) == 0, command
