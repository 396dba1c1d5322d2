"""`python -m vltok_causal_lm captions`: the texts that a prior writes of the pictures of an export."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vltok.errors import UserError, one_line, whole_number
from vltok.files import written_whole
from vltok.io.bundle_files import read_bundle
from vltok.paths import read_path
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.shards import codes_of
from vltok.verbs.inputs import open_prior
from vltok_causal_lm import CausalLM


def write_captions(
    prior: str | Path,
    codes: str | Path,
    out: str | Path,
    *,
    batch_size: int = 16,
    device: str | None = None,
    trust: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write what a prior says of each picture of an export (`CausalLM.captions`): a line of JSON with `key` and `text`.

    Args:
        prior: The bundle of a `causal-lm` that has learned captions.
        codes: The folder of an export by `vltok tokenize`, of the tokenizer whose codes the prior models.
        out: The file to write, whole or not at all.
        batch_size: Pictures at the same time.
        device: `cpu`, `cuda` or `cuda:1`; by default a GPU where there is one.
        trust: Whether the bundle may name more than registered components: see `vltok.load_prior`.
        progress: Is told how many pictures are done, of how many.

    Returns:
        How many pictures there are.

    Raises:
        UserError: An argument is wrong, the prior writes no captions, or the codes are damaged, or none of the prior's.
    """
    whole_number("--batch-size", batch_size, 1)
    folder = read_path(codes)
    manifest = CodeManifest.read(folder)
    manifest.check_shards(folder)
    models, found = read_bundle(prior, "prior")[1]["tokenizer"]["fingerprint"], manifest.settings.tokenizer
    if models != found:
        raise UserError(
            f"the codes in {folder} are of another tokenizer ({found[:12]}…) than those that '{prior}' models "
            f"({models[:12]}…): tokenize the pictures with that one"
        )
    lines: list[str] = []
    with open_prior(prior, device, trust=trust) as opened:
        if not isinstance(opened.model, CausalLM):
            raise UserError(f"'{prior}' is a {type(opened.model).__name__}, which writes no captions: give a causal-lm")
        for shard in manifest.shards:
            samples = list(manifest.read_samples(folder, shard))
            for start in range(0, len(samples), batch_size):
                batch = samples[start : start + batch_size]
                texts = opened.model.captions(codes_of(batch).validate(opened.model.spec).to(opened.device))
                for sample, text in zip(batch, texts, strict=True):
                    lines.append(json.dumps({"key": sample.key, "text": text}, ensure_ascii=False) + "\n")
            if progress is not None:
                progress(len(lines), manifest.statistics["samples"])
    with written_whole(Path(out)) as file:
        file.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: What follows its name; by default those of the process.

    Returns:
        The exit code: 0 success, 1 an error, 2 wrong arguments, 130 interrupted.
    """
    parser = argparse.ArgumentParser("python -m vltok_causal_lm", description="What vltok's own commands do not do.")
    commands = parser.add_subparsers(dest="command", required=True)
    captions = commands.add_parser("captions", help="write what a prior says of each picture of an export")
    captions.add_argument("prior", help="the bundle of a causal-lm that has learned captions")
    captions.add_argument("codes", help="the folder that 'vltok tokenize' wrote of the pictures")
    captions.add_argument("--out", required=True, help="the file to write: a line of JSON a picture")
    captions.add_argument("--batch-size", type=int, default=16, help="pictures at the same time (default: 16)")
    captions.add_argument("--device", help="cpu, cuda or cuda:1; by default a GPU where there is one")
    captions.add_argument("--trust", action="store_true", help="the bundle may name more than registered components")
    given = vars(parser.parse_args(argv))
    del given["command"]
    try:
        count = write_captions(**given, progress=lambda done, of: print(f"{done} of {of} pictures", file=sys.stderr))
    except KeyboardInterrupt:
        print("vltok_causal_lm: interrupted; nothing is written", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"vltok_causal_lm: error: {one_line(error)}", file=sys.stderr)
        return 1
    print(f"{count} captions; written to {given['out']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
