"""What a training of a tokenizer has not reached, though it ended well."""

from __future__ import annotations

from collections.abc import Iterator

from vltok.evaluation.records import Record
from vltok.interfaces import Budget, RatioTargeted, Tokenizer

#: The share by which the mean code length, and the difference by which a ratio, may miss what the recipe asks for.
_MISSED = 0.05
#: Less of a codebook in use is a collapse.
_LEAST_USAGE = 0.1


def shortcomings(record: Record, tokenizer: Tokenizer) -> Iterator[str]:
    """What was asked for and is missed, with the remedy.

    Args:
        record: What was measured of the tokenizer after training.
        tokenizer: What was trained.
    """
    held = any(isinstance(part, Budget) for part in tokenizer.modules())
    remedy = "train longer, or give the budget more weight" if held else "train longer"
    length, expected = (record.figure(name) for name in ("length_of_training", "expected_length"))
    asked = tokenizer.target_ratios if isinstance(tokenizer, RatioTargeted) else None
    shares = {} if asked is None else dict(zip(asked.factors, asked.shares, strict=True))
    found = {factor: record.figure(f"ratio_{factor}_of_training") for factor in shares}
    if expected is not None and abs(length - expected) > _MISSED * expected:
        yield f"images have {length:.1f} codes on average, where the recipe asks for {expected:.1f}: {remedy}"
    elif any(share is not None and abs(share - shares[factor]) > _MISSED for factor, share in found.items()):
        missed = ", ".join(f"{factor}: {share:.2f}" for factor, share in found.items())
        yield f"the ratios are {{{missed}}}, where the recipe asks for {shares}: {remedy}"
    usage = record.figure("codebook_usage")
    size, seen = tokenizer.spec.entries, record.protocol["data"]["images"] * (record.figure("length") or 0)
    if usage is not None and usage < _LEAST_USAGE and seen >= size:
        yield (
            f"{usage * size:.0f} of {size} codes are used: the codebook has collapsed; the quantizer ema-vq brings "
            "codes that nobody uses back, and a smaller model.tokenizer.quantizer.size loses fewer"
        )
