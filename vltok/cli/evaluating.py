"""What `vltok evaluate` does once torch is needed: load, measure, and write."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Int
from jsonargparse import Namespace
from torch import Tensor, nn

from vltok.cli.progress import progress
from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.evaluation.adaptation import adaptive
from vltok.evaluation.codec_rates import find_quality
from vltok.evaluation.coders import CoarsestCoder, CodecCoder, Coder, TokenizerCoder
from vltok.evaluation.measuring import Measured, Share, measure_prior, measure_reconstruction
from vltok.evaluation.records import Record, environment, package_version
from vltok.evaluation.report import report_html
from vltok.figures.grids import example_grid
from vltok.figures.unfolding import save_unfolding
from vltok.files import alone_in, written_whole
from vltok.interfaces import Ordered, Tokenizer
from vltok.io.bundles import fingerprint, load_prior, load_tokenizer, prior_fingerprint
from vltok.io.places import find_tokenizer
from vltok.launchers import find_rank
from vltok.losses.perceptual import LPIPS
from vltok.measures.distances import check_images
from vltok.measures.features import FeatureNetwork, feature_network, weights_hash
from vltok.measures.gathering import gather, joined
from vltok.measures.quality import Quality
from vltok.nn.precision import full_float32
from vltok.pictures.images import ExportSource
from vltok.verbs.devices import choose_device

_PICTURES = 8


@dataclass(frozen=True)
class Setting:
    """What every kind of evaluation needs.

    Attributes:
        options: Those of the command line.
        source: The pictures.
        share: This process's part of them.
        network: The feature network, or None.
        device: Where to compute.
    """

    options: Namespace
    source: ExportSource
    share: Share
    network: FeatureNetwork | None
    device: str


@dataclass(frozen=True, eq=False)
class Found:
    """What an evaluation gave.

    Attributes:
        subject: What was measured.
        measured: The figures.
        spec: Of its codes; None for a codec.
        protocol: What the figures depend on, besides the pictures and the feature network.
        order: When each code of the first picture was drawn; None where that is not known.
    """

    subject: dict[str, Any]
    measured: Measured
    spec: CodeSpec | None
    protocol: dict[str, Any]
    order: Int[Tensor, " t"] | None = None


def evaluate(kind: Literal["tokenizer", "prior", "codec"], options: Namespace, text: str) -> None:
    """Measure what the options name, print the figures, and write the folder.

    Args:
        kind: What is measured.
        options: How, with the data built.
        text: The options as YAML.

    Raises:
        UserError: Pictures, a bundle or weights are not to be had.
    """
    rank, world_size, local_rank = find_rank(os.environ)
    with alone_in(Path(options.out)) if rank == 0 else contextlib.nullcontext():
        _evaluate(kind, options, text, Share(rank, world_size), choose_device(options.device, local_rank))


def _evaluate(
    kind: Literal["tokenizer", "prior", "codec"], options: Namespace, text: str, share: Share, device: str
) -> None:
    source = options.data.export_source(options.split)
    if options.features is not None:
        check_images(min(source.pictures, options.count) if kind == "prior" else source.pictures)
    network = None if options.features is None else feature_network(options.features).to(device)
    measure = {"tokenizer": _tokenizer, "codec": _codec, "prior": _prior}[kind]
    share = replace(share, batch_size=options.batch_size or options.data.batch_size, workers=options.data.workers)
    total = len(share.of(source.pictures)) + (len(share.of(options.count)) if kind == "prior" else 0)
    with joined(share.rank, share.world_size, device), full_float32(), warnings.catch_warnings():
        # the kernel distance needs all features; their memory is what the user pays for it
        warnings.filterwarnings("ignore", message="Metric `.*` will save all extracted features")
        with progress("evaluate", total) as report:
            setting = Setting(options, source, replace(share, report=report), network, device)
            found = measure(setting)
        skipped = gather(options.data.skipped)
    if share.rank == 0:
        _write(kind, setting, found, skipped, text)


def _tokenizer(setting: Setting) -> Found:
    path = setting.options.tokenizer
    tokenizer = load_tokenizer(path, setting.device, trust=setting.options.trust)
    coder = TokenizerCoder(tokenizer, setting.device)
    subject = {"path": path, "fingerprint": fingerprint(path), "parameters": _parameters(tokenizer)}
    fixed, described = _fixed(setting, tokenizer)
    found = _reconstruct(setting, coder, tokenizer.spec, subject, fixed)
    return replace(found, protocol={**found.protocol, "fixed": described})


def _fixed(setting: Setting, tokenizer: Tokenizer) -> tuple[Coder | None, str | None]:
    """The coder of fixed length whose error map stands beside the coding map, and what it is."""
    path = setting.options.fixed
    if path is None:
        own = CoarsestCoder(tokenizer, setting.device) if adaptive(tokenizer) else None
        return own, None if own is None else "the tokenizer itself, coarsest granularity"
    fixed = load_tokenizer(path, setting.device, trust=setting.options.trust)
    if fixed.spec.granularities > 1:
        raise UserError(
            f"--fixed '{path}' has the factors {list(fixed.spec.factors)}: name a tokenizer with a single one"
        )
    if not tokenizer.spec.gridded:
        raise UserError(
            f"--fixed: the codes of '{setting.options.tokenizer}' lie on no grid, so that it has no coding map"
        )
    return TokenizerCoder(fixed, setting.device), fingerprint(path)


def _codec(setting: Setting) -> Found:
    codec, quality, rate = (setting.options[name] for name in ("codec", "quality", "bits_per_pixel"))
    subject = {"codec": codec, "quality": quality}
    if quality is None:
        quietly = replace(setting.share, report=lambda count: None)
        quality = find_quality(codec, rate, setting.source, quietly)
        subject = {"codec": codec, "quality": quality, "asked_bits_per_pixel": rate}
    return _reconstruct(setting, CodecCoder(codec, quality), None, subject)


def _reconstruct(
    setting: Setting, coder: Coder, spec: CodeSpec | None, subject: dict[str, Any], fixed: Coder | None = None
) -> Found:
    options, lpips = setting.options, None
    if options.lpips:
        lpips = LPIPS()
        lpips.load()
        lpips.to(setting.device).eval()
    measured = measure_reconstruction(
        coder,
        spec,
        setting.source,
        setting.share,
        Quality(lpips),
        setting.network,
        fixed,
        options.examples,
        setting.device,
        options.seed,
    )
    network = None if lpips is None else {"name": "vgg16", "weights": weights_hash(lpips)}
    return Found(subject, measured, spec, {"lpips": network})


def _prior(setting: Setting) -> Found:
    options, path = setting.options, setting.options.prior
    bundle = find_tokenizer(path, options.tokenizer, trust=options.trust)
    tokenizer = load_tokenizer(bundle, setting.device, trust=options.trust)
    prior = load_prior(path, setting.device, trust=options.trust)
    measured = measure_prior(
        prior,
        tokenizer,
        setting.source,
        options.count,
        options.sampling,
        setting.share,
        setting.network,
        options.examples,
        setting.device,
        options.seed,
    )
    subject = {
        "path": path,
        "fingerprint": prior_fingerprint(path),
        "parameters": _parameters(prior),
        "tokenizer": fingerprint(bundle),
    }
    drawn = {"count": options.count, "sampling": asdict(options.sampling), "seed": options.seed}
    order = None
    if measured.examples and tokenizer.spec.gridded and isinstance(prior, Ordered):
        order = prior.drawing_order(measured.examples[0].codes.to(setting.device)).cpu()
    return Found(subject, measured, tokenizer.spec, {"drawn": drawn}, order)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _write(
    kind: Literal["tokenizer", "prior", "codec"], setting: Setting, found: Found, skipped: list[str], text: str
) -> None:
    options, measured, network = setting.options, found.measured, setting.network
    data = {
        "pixels": measured.pixels,
        "split": options.split,
        "size": options.data.size,
        "images": measured.images,
    }
    features = None
    if network is not None:
        package = f"{network.package} {package_version(network.package)}"
        features = {"name": network.name, "weights": weights_hash(network), "package": package}
    protocol = {
        "data": data,
        "crops": setting.source.described,
        "features": features,
        "precision": "float32",
        "seed": options.seed,
        "versions": {name: package_version(name) for name in ("torchmetrics", "pillow")},
        **found.protocol,
    }
    where = {
        **environment(setting.device),
        # a description knows of this process's corrupt pictures alone
        "data": {key: value for key, value in options.data.description().items() if key != "skipped"},
        "skipped": skipped,
    }
    record = Record(kind, found.subject, measured.values, measured.codes, protocol, where)
    out = Path(options.out)
    with written_whole(out / "config.yaml") as path:
        path.write_text(text, encoding="utf-8")
    written = [record.write(out), out / "config.yaml"]
    with written_whole(out / "report.html") as page:
        page.write_text(report_html(record, measured.examples, found.spec), encoding="utf-8")
    if kind == "tokenizer" and measured.examples:
        with written_whole(out / "reconstructions.png") as picture:
            example_grid(measured.examples[:_PICTURES], found.spec).save(picture)
        written.append(out / "reconstructions.png")
    if found.order is not None:
        first = measured.examples[0]
        save_unfolding(first.result, first.codes, found.order, found.spec, out / "unfolding.gif")
        written.append(out / "unfolding.gif")
    if measured.per_image:
        written.append(_write_images(measured, out))
    if "asked_bits_per_pixel" in record.subject:
        asked = record.subject["asked_bits_per_pixel"]
        print(f"{record.name}: the quality whose rate comes nearest to {asked:g} bits per pixel without exceeding it")
    width = max(map(len, record.values))
    for name, value in record.values.items():
        print(f"  {name:<{width}}  {value.shown()}")
    print(f"measured on {measured.images} pictures; written: {', '.join(map(str, written))}; everything at one look:")
    if network is None:
        print(
            "the distance between the sets of images was not measured: name a network for it with --features",
            file=sys.stderr,
        )
    print(out / "report.html")


def _write_images(measured: Measured, out: Path) -> Path:
    # the names of files need not be text
    how = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with written_whole(out / "images.csv") as path, path.open("w", **how) as file:
        writer = csv.writer(file)
        writer.writerow(["key", *measured.per_image])
        writer.writerows(zip(measured.keys, *(values.tolist() for values in measured.per_image.values()), strict=True))
    return out / "images.csv"
