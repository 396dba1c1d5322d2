"""What `vltok fit` leaves of a trained tokenizer: the bundle, the picture, the figures."""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer

from vltok.evaluation.adaptation import AdaptationFigures, adaptation_line, adaptive, measure_adaptation
from vltok.evaluation.reconstruction import ReconstructionFigures, measure
from vltok.figures.grids import reconstruction_grid
from vltok.files import written_whole
from vltok.interfaces import Tokenizer
from vltok.io.bundles import save_tokenizer
from vltok.pictures.images import ImageBatch, ImageData
from vltok.training.objective import Objective, name_of_trained
from vltok.verbs.run_folder import RunFolder
from vltok.version import __version__

#: How many crops of the training pictures are measured.
TRAINING_CROPS = 2048
_PICTURES = 8


def report_tokenizer(
    objective: Objective,
    data: ImageData,
    trainer: Trainer,
    config: Mapping[str, Any],
    folder: RunFolder,
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure a trained tokenizer, say the figures, and write bundle, picture and `metrics.json`.

    Args:
        objective: Whose tokenizer to measure.
        data: Its held-out pictures, and crops of those that it was trained on.
        trainer: Says on which device, and how much of the held-out pictures to take (`limit_val_batches`).
        config: The resolved recipe.
        folder: Where to write.
        seconds: How long training took.
        say: Is told the figures, line by line.

    Returns:
        The content of `metrics.json`.
    """
    say(f"trained for {trainer.global_step} steps in {seconds:.0f} s; measuring")
    tokenizer, device = objective.trained, trainer.strategy.root_device
    unseen = measure(tokenizer, _limited(data.val_dataloader(), trainer.limit_val_batches), device)
    count = math.ceil(TRAINING_CROPS / data.batch_size)
    seen = measure(tokenizer, _fresh(data.training_crops_dataloader(), objective.batches_calibrated_on, count), device)
    adaptation = None
    if adaptive(tokenizer):
        adaptation = measure_adaptation(tokenizer, _limited(data.val_dataloader(), trainer.limit_val_batches), device)
    figures = {**_figures(tokenizer, data, unseen, seen, adaptation), **objective.figures()}
    protocol = {
        "vltok": __version__,
        "data": data.description(),
        "skipped_pictures": len(data.skipped),
        "image_size": data.size,
        "images": {"unseen": unseen.images, "training": seen.images},
        "seed": config["seed_everything"],
        "precision": str(trainer.precision),
        "steps": trainer.global_step,
        "training_seconds": round(seconds, 1),
    }
    # first what took long to make: a picture that cannot be drawn or written must not cost it
    save_tokenizer(
        tokenizer.cpu(),
        config["model"]["init_args"][name_of_trained(objective)],
        folder.bundle,
        card=_card(data, unseen, seen, trainer.global_step),
        metrics=figures,
    )
    with written_whole(folder.metrics) as path:
        path.write_text(json.dumps({**figures, "protocol": protocol}, indent=2) + "\n", encoding="utf-8")
    _say(figures, unseen, seen, say)
    _draw(tokenizer.to(device), data, device, folder)
    say(f"written: {folder.bundle}, {folder.metrics}, {folder.picture}")
    return {**figures, "protocol": protocol}


def _figures(
    tokenizer: Tokenizer,
    data: ImageData,
    unseen: ReconstructionFigures,
    seen: ReconstructionFigures,
    adaptation: AdaptationFigures | None,
) -> dict[str, Any]:
    """The figures of `metrics.json`: quality and adaptation over unseen pictures, budget over training pictures."""
    of_unseen, of_seen = unseen.to_dict(), seen.to_dict()
    return {
        **{key: of_unseen[key] for key in ("psnr", "codebook_usage", "length_std", "contrast_correlation")},
        "mean_length": of_seen["mean_length"],
        "expected_mean_length": tokenizer.expected_length(data.size, data.size),
        "ratios": of_seen["ratios"],
        "unseen_mean_length": of_unseen["mean_length"],
        "adaptation": None if adaptation is None else adaptation.to_dict(),
    }


def _limited(batches: Iterable[ImageBatch], limit: int | float | None) -> Iterable[ImageBatch]:
    """The share of batches that validation takes, by Lightning's rule; all where validation is switched off."""
    # 1.0 is all of them, 1 is a single one; a stream may not know its length
    if not limit or (isinstance(limit, float) and limit == 1):
        return batches
    return itertools.islice(batches, int(len(batches) * limit) if isinstance(limit, float) else limit)


def _fresh(batches: Iterable[ImageBatch], calibration: int, count: int) -> Iterator[ImageBatch]:
    """Batches that calibration did not take; where there are no others, its own."""
    later = itertools.islice(batches, calibration, calibration + count)
    first = next(later, None)
    return itertools.islice(batches, count) if first is None else itertools.chain([first], later)


def _draw(tokenizer: Tokenizer, data: ImageData, device: torch.device, folder: RunFolder) -> None:
    images = next(iter(data.val_dataloader())).images[:_PICTURES].to(device)
    codes = tokenizer.encode(images)
    with written_whole(folder.picture) as path:
        reconstruction_grid(images, tokenizer.decode(codes), codes, tokenizer.spec).save(path)


def _card(data: ImageData, unseen: ReconstructionFigures, seen: ReconstructionFigures, steps: int) -> str:
    description = json.dumps(data.description(), indent=2, ensure_ascii=False)
    return (
        f"Trained for {steps} steps on images of {data.size} × {data.size} pixels with `vltok fit`.\n\n"
        f"PSNR, codebook usage, spread of length and contrast correlation are over {unseen.images} images that "
        f"training never saw; lengths and ratios over {seen.images} crops of the training pictures.\n\n"
        f"Data:\n\n```json\n{description}\n```"
    )


def _say(
    figures: Mapping[str, Any], unseen: ReconstructionFigures, seen: ReconstructionFigures, say: Callable[[str], None]
) -> None:
    def shown(value: float | None, form: str) -> str:
        return "none" if value is None else format(value, form)

    ratios = ", ".join(f"factor {factor}: {share:.3f}" for factor, share in (figures["ratios"] or {}).items())
    say(f"on {unseen.images} images that training never saw:")
    say(f"  PSNR                  {shown(figures['psnr'], '.2f')} dB")
    say(f"  codebook usage        {shown(figures['codebook_usage'], '.1%')}")
    say(f"  code length           {unseen.mean_length:.1f} ± {unseen.length_std:.1f}")
    say(f"  contrast correlation  {shown(figures['contrast_correlation'], '.3f')}")
    if figures["adaptation"] is not None:
        say(f"  adaptation            {adaptation_line(figures['adaptation'])}")
    say(f"on {seen.images} crops of the training pictures:")
    say(f"  code length           {seen.mean_length:.1f} (expected {shown(figures['expected_mean_length'], '.1f')})")
    if ratios:
        say(f"  ratios                {ratios}")
