"""What `vltok fit` leaves of a trained prior: the bundle, drawn pictures, the figures."""

import json
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer

from vltok.errors import UserError
from vltok.evaluation.unigram import unigram_loss
from vltok.figures.grids import sample_grid
from vltok.files import written_whole
from vltok.interfaces import Prior, SamplingConfig
from vltok.io.bundles import load_tokenizer, save_prior
from vltok.io.places import matching, places_of, resolve
from vltok.sequences.source import CodeSource
from vltok.training import PriorTraining
from vltok.verbs.run_folder import RunFolder
from vltok.version import __version__

_PICTURES = 16


def check_codes(prior: Prior, data: LightningDataModule) -> None:
    """See that a prior was built for the codes that it shall be trained on.

    Raises:
        UserError: It was not: names the argument and what it must be.
    """
    if not isinstance(data, CodeSource):
        raise UserError(
            f"data: a prior is trained on codes, which {type(data).__name__} does not give; write them with "
            "'vltok tokenize', and give --data codes --data.root DIR"
        )
    facts = data.training.facts
    root = facts.place
    if prior.spec.gridded and not facts.spec.gridded:
        raise UserError(
            f"model.prior has factors {_plain(prior.spec.factors)}, but the codes in {root} lie on no grid: give a "
            "prior that models plain sequences, such as causal-lm of vltok-causal-lm"
        )
    for key in ("codebook_size", "factors", "regions", "max_length"):
        wanted, found = getattr(prior.spec, key), getattr(facts.spec, key)
        # a prior may leave open what it does not need
        if wanted != found and wanted is not None:
            raise UserError(
                f"model.prior has {key} {_plain(wanted)}, but the codes in {root} have {_plain(found)}: "
                f"set --model.prior.{key} '{_plain(found)}'"
            )
    names = facts.classes
    if prior.classes is not None and not facts.labelled:
        raise UserError(
            f"model.prior.classes is {prior.classes}, but the codes in {root} have no labels: set it to null, or "
            "tokenize pictures that have classes"
        )
    if prior.classes is not None and names is not None and len(names) != prior.classes:
        raise UserError(
            f"model.prior.classes is {prior.classes}, but the codes in {root} have {len(names)}: "
            f"set --model.prior.classes {len(names)}"
        )
    if data.held_out is not None and data.held_out.facts.labelled < facts.labelled:
        raise UserError(f"the codes in {data.held_out.facts.place} have no labels, but those in {root} have")


def report_prior(
    training: PriorTraining,
    data: CodeSource,
    trainer: Trainer,
    config: Mapping[str, Any],
    folder: RunFolder,
    seconds: float,
    trust: bool = False,
) -> None:
    """Measure a trained prior, print the figures, and write bundle, picture and `metrics.json`.

    All processes of the training call it: each measures its part.

    Args:
        training: Whose prior to measure.
        data: The codes.
        trainer: The one that has trained it.
        config: The resolved recipe.
        folder: Where to write.
        seconds: How long training took.
        trust: Whether the tokenizer's bundle may name more than registered components, and be downloaded.
    """
    measured = _measure(training, data, trainer)
    if not trainer.is_global_zero:
        return
    facts = data.training.facts
    steps = trainer.global_step
    protocol = {
        "vltok": __version__,
        "sequences": {
            "training": len(data.training),
            "unseen": 0 if data.held_out is None else len(data.held_out),
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
    figures = {**measured, "codes_per_second": training.speed.per_second()}
    # first what took long to make: pictures that cannot be drawn or written must not cost it
    save_prior(
        training.prior.cpu(),
        config["model"]["init_args"]["prior"],
        folder.bundle,
        facts.tokenizer,
        facts.tokenizer_places[-1:] if tokenizer is None else places_of(tokenizer, folder.bundle),
        card=f"Trained for {steps} steps on {len(data.training)} code sequences with `vltok fit`.",
        metrics=figures,
    )
    try:
        if tokenizer is not None:
            device, seed = trainer.strategy.root_device, config["seed_everything"]
            figures["samples_per_second"] = _draw(training.prior, tokenizer, device, seed, folder, trust)
    except UserError as error:  # the prior is trained all the same
        undrawn = str(error)
    finally:
        with written_whole(folder.metrics) as path:
            path.write_text(json.dumps({**figures, "protocol": protocol}, indent=2) + "\n", encoding="utf-8")
    _print(figures, data, folder)
    if "samples_per_second" not in figures:
        print(f"no pictures were drawn: {undrawn}; give its bundle to 'vltok sample' with --tokenizer")


def _measure(training: PriorTraining, data: CodeSource, trainer: Trainer) -> dict[str, float]:
    """The likelihood of the held-out codes, over all devices, and that of a unigram model; nothing without them."""
    if data.held_out is None or not trainer.limit_val_batches:
        return {}
    (logged,) = trainer.validate(training, datamodule=data, verbose=False)
    figures = {name.removeprefix("val_"): float(value) for name, value in logged.items()}
    if figures and trainer.is_global_zero:
        figures["unigram_per_code"] = unigram_loss(data.training, data.held_out)
        if "content_per_code" in figures:
            figures["content_below_unigram"] = 1 - figures["content_per_code"] / figures["unigram_per_code"]
    return figures


def _draw(prior: Prior, bundle: str, device: torch.device, seed: int, folder: RunFolder, trust: bool) -> float:
    """Write pictures that the prior draws; how many images' codes it drew a second."""
    prior, tokenizer = prior.to(device).eval(), load_tokenizer(bundle, device, trust=trust)
    wanted = _PICTURES if prior.classes is None else torch.arange(_PICTURES) % prior.classes
    start = time.monotonic()
    codes = prior.sample(wanted, SamplingConfig(), torch.Generator().manual_seed(seed))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.monotonic() - start
    with torch.inference_mode():
        images = tokenizer.decode(codes)
    with written_whole(folder.samples) as path:
        sample_grid(images, codes, tokenizer.spec, columns=4).save(path)
    return _PICTURES / seconds


def _print(figures: Mapping[str, float], data: CodeSource, folder: RunFolder) -> None:
    if "unigram_per_code" in figures:
        print(f"on {len(data.held_out)} code sequences that training never saw:")
        parts = [name.removesuffix("_per_code") for name in figures if name.endswith("_per_code")]
        parts = [part for part in parts if part in figures]
        for part in parts:
            print(f"  {part + ' loss':<21} {figures[part]:.4f} nats a token, {figures[part + '_per_code']:.4f} a code")
        print(f"  a unigram model       {figures['unigram_per_code']:.4f} nats a code")
        if "content_below_unigram" in figures:
            print(f"  contents against it   {-figures['content_below_unigram']:+.1%}")
        print(f"  in all                {figures['bits_per_code']:.3f} bits a code, ", end="")
        print(f"{figures['bits_per_image']:.0f} bits an image")
    print(f"trained on {figures['codes_per_second']:.0f} codes a second")
    if "samples_per_second" in figures:
        print(f"drew {figures['samples_per_second']:.2f} images a second")
    written = [folder.bundle, folder.metrics, *([folder.samples] if folder.samples.is_file() else [])]
    print(f"written: {', '.join(map(str, written))}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
