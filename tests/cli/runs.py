"""What tests of runs share: a recipe of seconds."""

import pytest


def dq_vae(gate: str, codes: int = 16, encoder: str = "") -> str:
    """The model of a recipe of seconds, as YAML, to which other parts may be added.

    Args:
        gate: The gate's name, and what follows it.
        codes: Size of the codebook.
        encoder: More arguments of the encoder, each after a comma.
    """
    return f"""\
model:
  class_path: vltok.training.TokenizerTraining
  init_args:
    tokenizer:
      class_path: dq-vae
      init_args:
        encoder: {{class_path: patch, init_args: {{factors: [4, 8], width: 8, blocks: 1, channels: 8{encoder}}}}}
        gate: {{class_path: {gate}}}
        quantizer: {{class_path: ema-vq, init_args: {{size: {codes}, dimension: 4}}}}
        decoder: {{class_path: pixel-shuffle, init_args: {{factor: 4, channels: 8, width: 8, blocks: 1}}}}
"""


RECIPE = (
    "\nseed_everything: 3\n"
    + dq_vae("entropy, init_args: {ratios: {4: 0.5, 8: 0.5}}")
    + """\
    perceptual: {class_path: none}
    calibration_batches: 4
data: {class_path: photos, init_args: {size: 16, batch_size: 4, train_crops: 32, val_crops: 9}}
trainer:
  accelerator: cpu
  max_steps: 2
  callbacks: [{class_path: vltok.training.ExponentialMovingAverage, init_args: {decay: 0.5}}]
"""
)


def one_line(capsys: pytest.CaptureFixture) -> str:
    """What was said, which is one line."""
    shown = capsys.readouterr().err
    lines = [line for line in shown.splitlines() if line.startswith("vltok:")]
    assert len(lines) == 1 and "Traceback" not in shown
    return lines[0]
