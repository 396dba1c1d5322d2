"""A tiny project that the verbs themselves make: pictures, shards, a tokenizer, its codes, and finished runs."""

from __future__ import annotations

from pathlib import Path

from tests.cli.exports import write_bundle, write_pictures
from tests.cli.runs import dq_vae
from tests.faults.commands import DATA, EVALUATE, FIT, FIT_PRIOR, PACK, to
from tests.faults.processes import Running

TOKENIZER = (
    "\nseed_everything: 3\n"
    + dq_vae("feature, init_args: {channels: 8, granularities: 2, norm_groups: 4}", codes=300)
    + """\
        budget: {class_path: ratio, init_args: {ratios: {4: 0.5, 8: 0.5}}}
    perceptual: {class_path: none}
data: {class_path: folder, init_args: {root: pictures, size: 16, batch_size: 4, val_share: 0.3, workers: 0}}
trainer: {accelerator: cpu, max_steps: 20, num_sanity_val_steps: 0}
"""
)
PRIOR = """
seed_everything: 5
model:
  class_path: vltok.training.PriorTraining
  init_args:
    prior:
      class_path: dq-transformer
      init_args: {codebook_size: 300, factors: [4, 8], regions: [2, 2], width: 16, heads: 2,
                  position_layers: 1, content_layers: 1}
    learning_rate: 1.0e-2
data: {class_path: codes, init_args: {root: codes/train, validation: codes/val, batch_size: 4, workers: 0}}
trainer: {accelerator: cpu, max_steps: 20, num_sanity_val_steps: 0}
"""
TABLE = "title: Lengths\nsource: none\nbase: ../tokenizer.yaml\ncolumns: [{key: psnr, heading: PSNR, format: .2f}]\n"


def make_project(folder: Path) -> None:
    """Fill an empty folder; in it `fit`'s recipes are tokenizer.yaml and prior.yaml."""
    write_bundle(folder / "tokenizer")
    write_pictures(folder / "pictures", 40)
    (folder / "tokenizer.yaml").write_text(TOKENIZER)
    (folder / "prior.yaml").write_text(PRIOR)
    (folder / "table").mkdir()
    (folder / "table" / "table.yaml").write_text(TABLE)
    (folder / "table" / "short.yaml").write_text("trainer: {max_steps: 2}\n")
    for arguments in (
        *(["tokenize", "--tokenizer=tokenizer", f"--split={s}", f"--out=codes/{s}", *DATA] for s in ("train", "val")),
        to("runs/tokenizer", FIT),
        to("runs/prior", FIT_PRIOR),
        to("shards", PACK),
        to("evaluated", EVALUATE),
    ):
        Running(arguments, [], folder, {}, folder / ".printed").end().fine()
