"""The sound inputs that rubbish is made of: a project at a tiny size, made with vltok itself."""

from pathlib import Path

import torch

from ..cli.exports import write_pictures
from ..cli.runs import dq_vae
from ..io.importers.foreign import llamagen_state
from .warm import WarmProcess

TOKENIZER = (
    "seed_everything: 3\n"
    + dq_vae("feature, init_args: {channels: 8, granularities: 2, norm_groups: 4}")
    + """\
        budget: {class_path: ratio, init_args: {ratios: {4: 0.5, 8: 0.5}}}
    perceptual: {class_path: none}
data: {class_path: folder, init_args: {root: pictures, size: 16, batch_size: 4, workers: 0, val_share: 0.2}}
trainer: {accelerator: cpu, max_steps: 2}
"""
)
PRIOR = """\
seed_everything: 5
model:
  class_path: vltok.training.PriorTraining
  init_args:
    prior:
      class_path: dq-transformer
      init_args:
        codebook_size: 16
        factors: [4, 8]
        regions: [2, 2]
        width: 16
        heads: 2
        position_layers: 1
        content_layers: 1
        classes: 2
        label_dropout: 0.2
data: {class_path: codes, init_args: {root: codes/train, validation: codes/val, batch_size: 8, workers: 0}}
trainer: {accelerator: cpu, max_steps: 2, num_sanity_val_steps: 0}
"""
TABLE = """\
title: Gates
source: a test
base: ../tokenizer.yaml
columns: [{key: psnr, heading: PSNR, unit: dB, format: .2f}]
"""
ROW = "model.tokenizer.gate: random\nmodel.tokenizer.gate.ratios: {4: 0.5, 8: 0.5}\nmodel.tokenizer.budget: null\n"
PICTURES = ("--data=folder", "--data.root=pictures", "--data.size=16", "--data.workers=0", "--data.batch_size=4")


def make_sound(folder: Path, warm: WarmProcess) -> None:
    """Write the project: pictures, shards, recipes, runs, bundles, codes, evaluations, a table of ablations and
    the checkpoint of another project."""
    folder.mkdir(parents=True)
    write_pictures(folder / "pictures", 14)
    (folder / "tokenizer.yaml").write_text(TOKENIZER)
    (folder / "prior.yaml").write_text(PRIOR)
    (folder / "table").mkdir()
    (folder / "table" / "table.yaml").write_text(TABLE)
    (folder / "table" / "row.yaml").write_text(ROW)
    torch.save({"model": llamagen_state()}, folder / "foreign.pt")
    tokenize = ("tokenize", "--tokenizer=runs/tokenizer/bundle", "--shard-size=4", *PICTURES, "--data.val_share=0.3")
    commands = [
        ("pack", "pictures", "shards/%03d.tar", "--count=8", "--workers=0"),
        ("fit", "--config=tokenizer.yaml", "--out=runs/tokenizer"),
        *((*tokenize, f"--split={split}", f"--out=codes/{split}") for split in ("train", "val")),
        (*tokenize, "--format=parquet", "--out=codes/parquet"),
        ("fit", "--config=prior.yaml", "--out=runs/prior"),
        *(
            ("evaluate", "--codec=jpeg", f"--quality={quality}", f"--out=evaluated/jpeg-{quality}", *PICTURES)
            for quality in (20, 60)
        ),
    ]
    for arguments in commands:
        code = warm.run(arguments, folder, folder.with_suffix(".printed"), 120, {})
        if code != 0:
            raise RuntimeError(f"{arguments}: {folder.with_suffix('.printed.err').read_text()}")
