"""What `vltok fit` leaves of a trained prior: the bundle, drawn pictures, the figures."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from vltok.drawing.conditioning import Wanted
from vltok.errors import UserError
from vltok.evaluation.records import Record, environment
from vltok.evaluation.unigram import unigram_loss
from vltok.evaluation.values import Value, value_lines
from vltok.figures.grids import sample_grid, stacked
from vltok.files import written_whole
from vltok.interfaces import Prior, SamplingConfig
from vltok.io.bundles import load_tokenizer, prior_fingerprint, save_prior
from vltok.io.places import matching, places_of, resolve
from vltok.sequences.source import CodeSource
from vltok.training.objective import Objective
from vltok.verbs.provenance import provenance_of_fit
from vltok.verbs.run_folder import RunFolder

_PICTURES = 16


def report_prior(
    objective: Objective,
    data: CodeSource,
    trainer: Trainer,
    config: Mapping[str, Any],
    folder: RunFolder,
    seconds: float,
    say: Callable[[str], None],
    trust: bool = False,
) -> Record | None:
    """Measure a trained prior, say the figures, and write bundle, picture and `metrics.json`.

    All processes of the training call it: each measures its part. Arguments are those of
    `vltok.verbs.tokenizer_report.report_tokenizer`, and whether the tokenizer's bundle may name more than registered
    components, and be downloaded.

    Returns:
        What `metrics.json` holds; None in all processes but the first.
    """
    measured = _measure(objective, data, trainer)
    if not trainer.is_global_zero:
        return None
    prior = objective.trained
    facts = data.training.facts
    steps = trainer.global_step
    # what tells held-out codes from others without reading them all
    unseen = None if data.held_out is None else hashlib.sha256(data.held_out.lengths.tobytes()).hexdigest()
    protocol = {
        "data": {"tokenizer": facts.tokenizer, "lengths": unseen},
        "sequences": {
            "place": facts.place,
            "training": len(data.training),
            "unseen": 0 if data.held_out is None else len(data.held_out),
            **({"grids": facts.grids} if prior.asks_for_grid else {}),
        },
        "tokenizer": facts.tokenizer,
        "mean_length": float(data.training.lengths.mean()),
        "seed": config["seed_everything"],
        "precision": str(trainer.precision),
        "steps": steps,
        "training_seconds": round(seconds, 1),
    }
    places = resolve(facts.tokenizer_places, facts.place)
    tokenizer = matching(facts.tokenizer, places, download=trust)
    undrawn = f"the tokenizer of these codes ({facts.tokenizer[:12]}…) was not found"
    figures = {**measured, **objective.figures()}
    # first what took long to make: pictures that cannot be drawn or written must not cost it
    save_prior(
        prior.cpu(),
        folder.bundle,
        facts.tokenizer,
        facts.tokenizer_places[-1:] if tokenizer is None else places_of(tokenizer, folder.bundle),
        card=f"Trained for {steps} steps on {len(data.training)} code sequences with `vltok fit`.",
        metrics=figures,
        class_names=facts.classes,
        provenance=provenance_of_fit(config, protocol, environment(trainer.strategy.root_device)),
    )
    try:
        if tokenizer is not None:
            device, seed = trainer.strategy.root_device, config["seed_everything"]
            wanted = _wanted(prior, data)
            figures["samples_per_second"] = _draw(
                prior, wanted, tokenizer, device, seed, folder, trust, facts.classes, _grids(prior, data)
            )
    except UserError as error:  # the prior is trained all the same
        undrawn = str(error)
    finally:
        parameters = sum(parameter.numel() for parameter in prior.parameters())
        subject = {
            "path": str(folder.bundle),
            "fingerprint": prior_fingerprint(folder.bundle),
            "parameters": parameters,
            "tokenizer": facts.tokenizer,
        }
        values = {name: Value(figure) for name, figure in figures.items()}
        record = Record("prior", subject, values, {}, protocol, environment(trainer.strategy.root_device))
        record.write(folder.path)
    _say(figures, data, folder, say)
    if "samples_per_second" not in figures:
        say(f"no pictures were drawn: {undrawn}; give its bundle to 'vltok sample' with --tokenizer")
    return record


def _measure(objective: Objective, data: CodeSource, trainer: Trainer) -> dict[str, float]:
    """The likelihood of the held-out codes, over all devices, and that of a unigram model; nothing without them."""
    if data.held_out is None or not trainer.limit_val_batches:
        return {}
    (logged,) = trainer.validate(objective, datamodule=data, verbose=False)
    figures = {name.removeprefix("val_"): float(value) for name, value in logged.items()}
    compared = any(name.endswith("_per_code") for name in figures)  # a loss that is no likelihood has none
    if compared and trainer.is_global_zero:
        figures["unigram_per_code"] = unigram_loss(data.training, data.held_out)
        if "content_per_code" in figures:
            figures["content_below_unigram"] = 1 - figures["content_per_code"] / figures["unigram_per_code"]
    return figures


def _wanted(prior: Prior, data: CodeSource) -> Wanted:
    """What is drawn: each class in turn, or what the first pictures are conditioned on that training never saw."""
    if prior.conditioning.reader is None:
        return _PICTURES if prior.classes is None else torch.arange(_PICTURES) % prior.classes
    sequences = data.held_out or data.training
    first = np.arange(_PICTURES) % len(sequences)
    each = (sequences[place] for place in first[:, None])  # one by one, whatever their grids
    if (size := prior.conditioning.embedding_size) is not None:
        return torch.cat([codes.require_embeddings(size) for codes in each])
    return [codes.require_texts()[0] for codes in each]


def _grids(prior: Prior, data: CodeSource) -> Sequence[tuple[int, int] | None]:
    """Of which grids images are drawn in turn, where the prior draws those of any: of those that it was trained on."""
    return (prior.asks_for_grid and data.training.facts.grids[:_PICTURES]) or [None]


def _draw(
    prior: Prior,
    wanted: Wanted,
    bundle: str,
    device: torch.device,
    seed: int,
    folder: RunFolder,
    trust: bool,
    classes: Sequence[str] | None,
    grids: Sequence[tuple[int, int] | None],
) -> float:
    """Write pictures that the prior draws; how many images' codes it drew a second."""
    prior, tokenizer = prior.to(device).eval(), load_tokenizer(bundle, device, trust=trust)
    start = time.monotonic()
    generator = torch.Generator().manual_seed(seed)
    shares = [slice(turn, None, len(grids)) for turn in range(len(grids))]
    drawn = [
        prior.sample(
            len(range(wanted)[share]) if isinstance(wanted, int) else wanted[share],
            SamplingConfig(regions=regions),
            generator,
        )
        for regions, share in zip(grids, shares, strict=True)
    ]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.monotonic() - start
    with torch.inference_mode():
        images = [tokenizer.decode(codes) for codes in drawn]
    with written_whole(folder.samples) as path:
        sheets = [
            sample_grid(decoded, codes, tokenizer.spec, columns=4, classes=classes)
            for decoded, codes in zip(images, drawn, strict=True)
        ]
        stacked(sheets).save(path)
    return _PICTURES / seconds


def _say(figures: Mapping[str, float], data: CodeSource, folder: RunFolder, say: Callable[[str], None]) -> None:
    if data.held_out is not None:
        say(f"on {len(data.held_out)} code sequences that training never saw:")
    for line in value_lines({name: Value(figure) for name, figure in figures.items()}):
        say(line)
    written = [folder.bundle, folder.metrics, *([folder.samples] if folder.samples.is_file() else [])]
    say(f"written: {', '.join(map(str, written))}")
