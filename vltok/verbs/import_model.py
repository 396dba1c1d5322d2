"""`vltok.import_model`: a bundle of what another project trained."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.io.bundles import fingerprint, save_prior, save_tokenizer
from vltok.io.hub import Hub, is_hub_name
from vltok.io.importers.base import Imported, Importer
from vltok.io.importers.checkpoints import INDEX, load_config, read_checkpoint
from vltok.io.places import places_of
from vltok.paths import read_path
from vltok.registry import components, find
from vltok.verbs.build import build
from vltok.verbs.info import info

_CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_CONFIGS = (".yaml", ".yml", ".json")
#: What is no configuration of a model; the trainer's is written beside it by taming-transformers.
_OTHER_CONFIGS = (INDEX, "-lightning.yaml", "generation_config.json")
#: How many names of tensors a message shows.
_SHOWN = 5
#: How many words may stand before the names of a model that is a part of what a checkpoint holds.
_DEEPEST = 2


@dataclass(frozen=True)
class ImportedModel:
    """What `import_model` gave.

    Attributes:
        bundle: The bundle that was written.
        kind: ``tokenizer`` or ``prior``.
        format: Which importer read the checkpoint.
        parameters: How many the model has.
        averaged: Whether the weights are the moving averages (EMA) that the checkpoint holds.
        left_out: The checkpoint's tensors that have no place in the model, such as those of training losses.
        assumed: What the checkpoint does not say, and was taken to be; a sentence each.
        tokenizer: The bundle of the tokenizer whose codes a prior models.
    """

    bundle: Path
    kind: str
    format: str
    parameters: int
    averaged: bool
    left_out: tuple[str, ...]
    assumed: tuple[str, ...]
    tokenizer: str | None = None


def import_model(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    format: str | None = None,
    config: str | os.PathLike | None = None,
    averages: bool = True,
    tokenizer: str | os.PathLike | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> ImportedModel:
    """Write a bundle of a checkpoint of another project.

    Such are taming-transformers, latent-diffusion, diffusers, LlamaGen and the original DQ-VAE. The format is known by
    the names and shapes of the tensors (`vltok plugins importer` lists them). Nothing in the checkpoint is executed.

    Args:
        source: A checkpoint, a folder with one, or a repository of the Hugging Face Hub, `user/name`, or one file of
            it, `user/name/file.pt`.
        out: The folder of the bundle.
        format: The importer; by default the one that recognises the names and shapes of the tensors.
        config: The project's YAML or JSON file; by default what lies beside the checkpoint under the name of one.
        averages: Whether to take the weights' moving averages (EMA) where the checkpoint has them.
        tokenizer: For a prior, the bundle of the tokenizer whose codes it models; by default the one that its
            checkpoint carries along, which is written beside it, as `OUT-tokenizer`.
        revision: A branch, a tag or a commit of the repository.
        token: For a repository that not everybody may read.

    Raises:
        UserError: There is no such checkpoint, it is damaged or of no known format, tensors are missing, too many or
            of another shape than its format has, or the bundle cannot be written.
    """
    path, beside = _files(source, Hub(revision, token))
    config = config or beside
    found = read_checkpoint(path, averages)
    name, importer, prefix = _importer(found.tensors, format)
    tensors = {each.removeprefix(prefix): value for each, value in found.tensors.items() if each.startswith(prefix)}
    described = {} if config is None else load_config(Path(config))
    folder = Path(config or path).resolve().parent
    try:
        imported = importer.convert(described, tensors, folder)
    # tensors of another shape and a configuration with other values than its project's
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        reason = f"it has no {reason}" if isinstance(error, KeyError) else f"{type(error).__name__}: {reason}"
        raise UserError(f"'{path}' is not what {name} reads, or its configuration is not: {reason}") from error
    model = _built(imported)
    provenance = {"by": "vltok import", "source": path.name, "sha256": found.sha256, "format": name}
    card = f"Imported from `{path.name}`, a checkpoint in the format `{name}`."
    if imported.kind == "tokenizer":
        if tokenizer is not None:
            raise UserError("--tokenizer is for priors: this checkpoint is a tokenizer's")
        save_tokenizer(model, out, card, provenance=provenance)
    else:
        tokenizer = _tokenizer(imported, Path(out), tokenizer, card, provenance)
        _check_codes(model.spec, tokenizer)
        places = places_of(tokenizer, out)
        save_prior(model, out, fingerprint(tokenizer), places, card, provenance=provenance)
    return ImportedModel(
        Path(out),
        imported.kind,
        name,
        sum(each.numel() for each in model.parameters()),
        found.averaged,
        (*imported.dropped, *(each for each in found.tensors if not each.startswith(prefix))),
        (*imported.assumed, *([f"the model is what stands below '{prefix}'"] if prefix else [])),
        None if tokenizer is None else os.fspath(tokenizer),
    )


def _tokenizer(
    imported: Imported, out: Path, given: str | os.PathLike | None, card: str, provenance: Mapping[str, Any]
) -> str | os.PathLike:
    """The bundle of the tokenizer that a prior belongs to, written where the checkpoint carries it along."""
    if given is not None:
        return given
    if imported.tokenizer is None:
        raise UserError("the checkpoint is a prior's, and carries no tokenizer along: give its bundle with --tokenizer")
    carried, place = imported.tokenizer(), out.with_name(f"{out.name}-tokenizer")
    save_tokenizer(_built(carried), place, card, provenance=provenance)
    return place


def _check_codes(spec: CodeSpec, tokenizer: str | os.PathLike) -> None:
    """See that a tokenizer's codes are those that a prior models."""
    found = info(tokenizer).codes
    if found.codebooks != spec.codebooks:
        raise UserError(
            f"--tokenizer '{tokenizer}' has codes of {found.codebooks} ids, and the prior models codes of "
            f"{spec.codebooks}: give the tokenizer that it was trained with"
        )
    if (found.codebook_size, found.factors) != (spec.codebook_size, spec.factors):
        raise UserError(
            f"--tokenizer '{tokenizer}' has {found.codebook_size} codes of factors {list(found.factors)}, and the "
            f"prior models {spec.codebook_size} of {list(spec.factors)}: give the tokenizer that it was trained with"
        )


def _files(source: str | os.PathLike, hub: Hub) -> tuple[Path, Path | None]:
    """The checkpoint that is meant, and a configuration that lies with it."""
    path, name = read_path(source), os.fspath(source)
    if path.is_file():
        return path, _configuration(path, [])
    if not path.is_dir():
        repository, file = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
        # what is missing below a folder of this machine is not asked for elsewhere
        here = os.path.lexists(path) or ("@" not in name and Path(*path.parts[:1]).is_dir())
        if here or not is_hub_name(repository) or (file and not file.endswith(_CHECKPOINTS)):
            raise UserError(f"there is no checkpoint '{name}': no file and no folder")
        wanted = [file] if file else [f"*{ending}" for ending in _CHECKPOINTS]
        try:
            path = hub.fetch(repository, [*wanted, *(f"*{ending}" for ending in _CONFIGS)])
        except UserError as error:
            raise UserError(f"there is no checkpoint '{name}' here; as a repository: {error}") from error
        if file and not (path / file).is_file():
            raise UserError(f"repository '{repository}' has no file '{file}'")
        if file:
            return path / file, _configuration(path / file, [])
    files = [each for each in sorted(path.glob("**/*")) if each.is_file()]
    found = _checkpoints(files)
    if len(found) > 1:
        shown = ", ".join(str(each.relative_to(path)) for each in found[:_SHOWN])
        raise UserError(f"'{path}' holds {len(found)} checkpoints: name one of them ({shown})")
    if not found:
        raise UserError(f"'{path}' holds no checkpoint: no file that ends in {', '.join(_CHECKPOINTS)}")
    return found[0], _configuration(found[0], files)


def _checkpoints(files: list[Path]) -> list[Path]:
    """The checkpoints among files: an index stands for those that it names, safetensors for what has their name."""
    indices = [each for each in files if each.name.endswith(INDEX)]
    stems = [each.name.removesuffix(INDEX).rpartition(".")[0] for each in indices]
    found = [
        each
        for each in files
        if each.suffix in _CHECKPOINTS and not any(re.match(rf"{re.escape(stem)}-\d+-of-", each.name) for stem in stems)
    ]
    found = [*indices, *found]
    safe = {each.with_suffix("") for each in found if each.suffix == ".safetensors"}
    return [each for each in found if each.suffix == ".safetensors" or each.with_suffix("") not in safe]


def _configuration(checkpoint: Path, files: list[Path]) -> Path | None:
    """The configuration that is named as the checkpoint is, or config.json beside it, or the only one among files."""
    stem = checkpoint.name.removesuffix(INDEX).rpartition(".")[0]
    beside = [checkpoint.with_name(name) for name in [*(f"{stem}{ending}" for ending in _CONFIGS), "config.json"]]
    others = [each for each in files if each.suffix in _CONFIGS and not each.name.endswith(_OTHER_CONFIGS)]
    return next((each for each in beside if each.is_file()), others[0] if len(others) == 1 else None)


def _importer(state: Mapping[str, Tensor], format: str | None) -> tuple[str, Importer, str]:
    """The importer of a format, or the one that recognises tensors; and below which prefix of names they stand."""
    if format is not None:
        every = {format: find("importer", format).load()()}
    else:
        every = {component.name: component.load()() for component in components("importer")}
    for depth in range(_DEEPEST + 1):
        found = [
            (name, importer, prefix)
            for prefix, part in _parts(state, depth).items()
            for name, importer in every.items()
            if importer.recognises(part)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            told = " and ".join(f"{name} below '{prefix}'" if prefix else name for name, _, prefix in found)
            if len({name for name, _, _ in found}) == 1:
                raise UserError(f"the checkpoint holds several models, {told}: write one of them to a file of its own")
            raise UserError(f"the checkpoint may be of the formats {told}: say which with --from")
    if format is not None:  # it says itself what is missing
        return format, every[format], ""
    first = ", ".join(sorted(state)[:_SHOWN])
    hint = "; it has no codebook, as autoencoders of diffusion models have none" if _is_continuous(state) else ""
    raise UserError(f"the checkpoint is of none of the formats {', '.join(every)}{hint}: it holds {first} …")


def _parts(state: Mapping[str, Tensor], depth: int) -> dict[str, dict[str, Tensor]]:
    """The tensors by the first words of their names, as many as the depth says; without these words."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        words = name.split(".")
        if len(words) > depth:
            prefix = "".join(f"{word}." for word in words[:depth])
            parts.setdefault(prefix, {})[name.removeprefix(prefix)] = value
    return parts


def _is_continuous(state: Mapping[str, Tensor]) -> bool:
    return "quant_conv.weight" in state and not any(name.startswith("quantize.") for name in state)


def _built(imported: Imported) -> Any:
    """The model with its weights.

    Raises:
        UserError: Tensors are missing, too many, or of another shape than the model has; each is named.
    """
    config = {**imported.config, "class_path": _class_path(imported)}
    with torch.device("meta"):
        model = build(config)
    expected = model.state_dict()
    original = _original(imported.original_names)
    problems = {
        "are missing": [original(name) for name in expected if name not in imported.state],
        "have no place in the model": [original(name) for name in imported.state if name not in expected],
        "have another shape": [
            f"{original(name)} {list(value.shape)} instead of {list(expected[name].shape)}"
            for name, value in imported.state.items()
            if name in expected and value.shape != expected[name].shape
        ],
        "hold whole numbers, as quantized weights do": [
            original(name)
            for name, value in imported.state.items()
            if name in expected and expected[name].is_floating_point() and not value.is_floating_point()
        ],
    }
    told = [f"{len(names)} tensors {problem}: {_some(names)}" for problem, names in problems.items() if names]
    if told:
        raise UserError(f"the checkpoint does not hold what its format has: {'; '.join(told)}")
    model = build(config)
    model.load_state_dict(imported.state)
    return model.eval()


def _class_path(imported: Imported) -> str:
    """A name can be that of components of several kinds."""
    path: Any = imported.config["class_path"]
    return path if "." in path else find(imported.kind, path).class_path


def _original(names: Mapping[str, str]) -> Callable[[str], str]:
    def original(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        return names.get(name) or (f"{names[module]}.{leaf}" if module in names else name)

    return original


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
