"""What the tests of `vltok tokenize` and `vltok detokenize` share: a tiny bundle, real pictures, real processes."""

import multiprocessing
import os
import socket
import tempfile
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from PIL import Image
from skimage import data as photographs

from vltok.interfaces import Prior, Tokenizer
from vltok.io.bundles import save_prior, save_tokenizer
from vltok.io.recipes import instantiate, parse_tree, recipe_parser

CONFIG = {
    "class_path": "dq-vae",
    "init_args": {
        "encoder": {"class_path": "patch", "init_args": {"factors": [4, 8], "width": 8, "blocks": 1, "channels": 8}},
        "gate": {"class_path": "feature", "init_args": {"channels": 8, "granularities": 2, "norm_groups": 4}},
        "quantizer": {"class_path": "ema-vq", "init_args": {"size": 300, "dimension": 4}},
        "decoder": {"class_path": "pixel-shuffle", "init_args": {"factor": 4, "channels": 8, "width": 8, "blocks": 1}},
        "budget": {"class_path": "ratio", "init_args": {"ratios": {4: 0.5, 8: 0.5}}},
    },
}

PRIOR = {
    "class_path": "dq-transformer",
    "init_args": {
        "codebook_size": 300,
        "factors": [4, 8],
        "regions": [2, 2],
        "width": 16,
        "heads": 2,
        "position_layers": 1,
        "content_layers": 1,
    },
}

_PRELOADED = [
    "vltok.pictures.folder",
    "vltok.pictures.photos",
    "vltok.verbs.tokenize",
    "vltok.io.bundles",
    "vltok.tokenizers.budgets",
    "vltok.tokenizers.decoders",
    "vltok.tokenizers.dqvae",
    "vltok.tokenizers.encoders",
    "vltok.tokenizers.gates",
    "vltok.tokenizers.quantizers",
]


def write_bundle(path: Path, seed: int = 0, config: dict = CONFIG) -> Tokenizer:
    """A tokenizer that nothing has trained, as a bundle."""
    parser = recipe_parser("test")
    parser.add_subclass_arguments(Tokenizer, "tokenizer", required=True)
    torch.manual_seed(seed)
    tokenizer = instantiate(parser, parse_tree(parser, {"tokenizer": config})).tokenizer
    save_tokenizer(tokenizer, path)
    return tokenizer


def write_prior(path: Path, config: dict, tokenizer: str, class_names: Sequence[str] | None = None) -> None:
    """A prior that nothing has trained, as a bundle; `tokenizer` is the fingerprint of the one beside it."""
    parser = recipe_parser("test")
    parser.add_subclass_arguments(Prior, "prior", required=True)
    torch.manual_seed(0)
    prior = instantiate(parser, parse_tree(parser, {"prior": config})).prior
    save_prior(prior, path, tokenizer, ["../tokenizer"], class_names=class_names)


def write_pictures(root: Path, count: int) -> None:
    """Crops of real photographs in two classes."""
    sources = [Image.fromarray(photograph()) for photograph in (photographs.astronaut, photographs.chelsea)]
    for index in range(count):
        kind, photograph = index % 2, sources[index % 2]
        folder = root / ("person", "cat")[kind]
        folder.mkdir(parents=True, exist_ok=True)
        left, top = 7 * index % (photograph.width - 48), 11 * index % (photograph.height - 40)
        photograph.crop((left, top, left + 48, top + 40)).save(folder / f"{index:03d}.png")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start_process(arguments: list[str], said: Path | None = None, **environment: str) -> BaseProcess:
    """`vltok` in a process of its own, which need not import torch again: a server forks it that already has.

    Args:
        arguments: What follows the command.
        said: The file that gets what it says of errors; by default what the server had for that.
        environment: Variables of its environment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=_run, args=(arguments, said, environment))
    process.start()
    return process


def run_in_two(arguments: list[str], **environment: str) -> tuple[list[int | None], str]:
    """The exit codes of two processes of `vltok` that work together, as torchrun starts them, and what both said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    environment |= {"TORCHELASTIC_RUN_ID": "two", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, rank) for rank in "01"]
        processes = [
            start_process(arguments, file, **environment, RANK=file.name, LOCAL_RANK=file.name) for file in said
        ]
        for process in processes:
            process.join(240)
        return [process.exitcode for process in processes], "".join(file.read_text() for file in said)


def _run(arguments: list[str], said: Path | None, environment: dict[str, str]) -> None:
    from vltok.cli.main import main

    if said is not None:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    torch.set_num_threads(1)
    os.environ.update(environment)
    raise SystemExit(main(arguments))
