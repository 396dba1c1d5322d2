"""What `vltok fit` leaves of a trained tokenizer: the bundle, the picture, the figures."""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from vltok.evaluation.adaptation import adaptive, measure_adaptation
from vltok.evaluation.coders import TokenizerCoder
from vltok.evaluation.measurement import Measurement
from vltok.evaluation.reconstruction import measure_reconstruction
from vltok.evaluation.records import Record, environment
from vltok.evaluation.values import Value, value_lines
from vltok.figures.grids import stacked
from vltok.files import written_whole
from vltok.interfaces import LengthTargeted
from vltok.io.bundles import fingerprint, save_tokenizer
from vltok.nn.modes import evaluating
from vltok.pictures.images import ImageBatch, ImageData
from vltok.pictures.sizes import in_words
from vltok.training.objective import Objective
from vltok.training.pictures import draw_coded
from vltok.verbs.provenance import provenance_of_fit
from vltok.verbs.run_folder import RunFolder

#: How many crops of the training pictures are measured.
TRAINING_CROPS = 2048
_PICTURES = 8
#: In how many held-out batches pictures of each size are looked for.
_BATCHES = 16


def report_tokenizer(
    objective: Objective,
    data: ImageData,
    trainer: Trainer,
    config: Mapping[str, Any],
    folder: RunFolder,
    seconds: float,
    say: Callable[[str], None],
) -> Record:
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
        What `metrics.json` holds.
    """
    say(f"trained for {trainer.global_step} steps in {seconds:.0f} s; measuring")
    tokenizer, device = objective.trained, trainer.strategy.root_device
    tokenizer.to(device)
    unseen, seen = _limited(data.val_dataloader(), trainer.limit_val_batches), data.training_crops_dataloader()
    count = math.ceil(TRAINING_CROPS / data.batch_size)
    with evaluating(tokenizer):
        measured, of_training = (
            measure_reconstruction(TokenizerCoder(tokenizer, device), tokenizer.spec, batches, device=device).together()
            for batches in (unseen, _fresh(seen, objective.batches_calibrated_on, count))
        )
    values, protocol = dict(measured.values), {"adaptation": None}
    values["length_of_training"] = of_training.values["length"]
    for factor, share in of_training.codes["ratios"].items():
        values[f"ratio_{factor}_of_training"] = Value(share)
    # of several sizes nobody knows beforehand how many pictures have which
    one_size = isinstance(tokenizer, LengthTargeted) and len(data.sizes) == 1
    expected = tokenizer.expected_length(*data.sizes[0]) if one_size else None
    if expected is not None:
        values["expected_length"] = Value(expected)
    if adaptive(tokenizer):
        batches = _limited(data.val_dataloader(), trainer.limit_val_batches)
        adaptation = measure_adaptation(tokenizer, (batch.images for batch in batches), device)
        values |= adaptation.values
        protocol["adaptation"] = {"images": adaptation.images, "regions": adaptation.regions}
    values |= {name: Value(figure) for name, figure in objective.figures().items()}
    protocol |= {
        "data": {"pixels": measured.pixels, "split": "val", "size": data.size, "images": measured.images},
        "precision": "float32",
        "seed": config["seed_everything"],
        "steps": trainer.global_step,
        "training_data": {"images": of_training.images, "size": data.size, "description": data.description()},
        "training_precision": str(trainer.precision),
        "training_seconds": round(seconds, 1),
    }
    # first what took long to make: a picture that cannot be drawn or written must not cost it
    save_tokenizer(
        tokenizer.cpu(),
        folder.bundle,
        card=_card(data, measured, of_training, trainer.global_step),
        metrics={name: value.value for name, value in values.items()},
        provenance=provenance_of_fit(config, protocol, environment(device)),
    )
    parameters = sum(parameter.numel() for parameter in tokenizer.parameters())
    subject = {"path": str(folder.bundle), "fingerprint": fingerprint(folder.bundle), "parameters": parameters}
    codes = {"unseen": measured.codes, "training": of_training.codes}
    where = {**environment(device), "skipped": len(data.skipped)}
    record = Record("tokenizer", subject, values, codes, protocol, where)
    record.write(folder.path)
    _say(record, say)
    with written_whole(folder.picture) as path:
        stacked([draw_coded(tokenizer.to(device), images.to(device)) for images in _of_each_size(data)]).save(path)
    say(f"written: {folder.bundle}, {folder.metrics}, {folder.picture}")
    return record


def _of_each_size(data: ImageData) -> list[Tensor]:
    """The first held-out images of each size."""
    found: dict[tuple[int, ...], Tensor] = {}
    for batch in itertools.islice(data.val_dataloader(), _BATCHES):
        found.setdefault(tuple(batch.images.shape[2:]), batch.images[:_PICTURES])
        if len(found) == len(data.sizes):
            break
    return list(found.values())


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


def _card(data: ImageData, unseen: Measurement, seen: Measurement, steps: int) -> str:
    description = json.dumps(data.description(), indent=2, ensure_ascii=False)
    return (
        f"Trained for {steps} steps on images of {', '.join(map(in_words, data.sizes))} pixels with `vltok fit`.\n\n"
        f"Figures are over {unseen.images} images that training never saw; those on training pictures over "
        f"{seen.images} crops of these.\n\n"
        f"Data:\n\n```json\n{description}\n```"
    )


def _say(record: Record, say: Callable[[str], None]) -> None:
    of_training = {name for name in record.values if name.endswith("_of_training") or name == "expected_length"}
    unseen, crops = record.protocol["data"]["images"], record.protocol["training_data"]["images"]
    say(f"on {unseen} images that training never saw:")
    _say_figures({name: value for name, value in record.values.items() if name not in of_training}, say)
    say(f"on {crops} crops of the training pictures:")
    _say_figures({name: value for name, value in record.values.items() if name in of_training}, say)


def _say_figures(values: Mapping[str, Value], say: Callable[[str], None]) -> None:
    for line in value_lines(values):
        say(line)
