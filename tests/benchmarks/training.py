"""A prior's training step on packed sequences, against GPT-2 on padded batches of the same codes, and against itself on
sequences that are padded as section 3.3 of the paper describes: each granularity's part to the longest of the batch.

Codes alone count, neither ⟨sos⟩, ⟨eos⟩ nor padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2LMHeadModel

from vltok.codes import Codes, CodeSpec
from vltok.nn.attention import Packing
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.orderings import Sequences

from .base_prior import codes_of_images, dq_transformer, gpt2, told
from .table import Row, Setting, in_turns, name, ratios


def rows(setting: Setting) -> Iterator[Row]:
    """A step at each precision."""
    images, side = (3, 4) if setting.tiny else (4, 16)
    if setting.device == "cuda":
        images = 16
    prior = dq_transformer(setting, side)
    model = gpt2(prior)
    # padding can make a sequence longer than any real one: give the steps that are left over an embedding too
    longest, width = 2 * prior.spec.longest_length, prior.position_transformer.width
    prior.step_embedding = nn.Embedding(longest, width, device=setting.device)
    codes = codes_of_images(prior.spec, images).to(setting.device)
    packed = prior.ordering(codes)
    few = replace(setting, turns=min(setting.turns, 3))
    for dtype in setting.precisions:
        count, size = int(codes.lengths.sum()), f"{images} images, {name(dtype)}, {told(prior)}"

        def ours(sequences: Sequences = packed, dtype: torch.dtype = dtype) -> None:
            step(prior, prior_loss, sequences, dtype)

        for work, baseline, theirs, target in (
            ("training", "GPT-2, padded", lambda dtype=dtype: step(model, gpt2_loss, codes, dtype), 1.3),
            ("training", "itself, padded", lambda: ours(padded(packed, prior.spec)), None),
        ):
            seconds, others = in_turns(ours, theirs, few)
            yield Row(
                work,
                size,
                f"{count / min(seconds):,.0f} codes/s",
                f"{baseline} {count / min(others):,.0f} codes/s",
                ratios(seconds, others),
                target,
            )


def step(model: nn.Module, loss, batch, dtype: torch.dtype) -> None:
    """A forward and a backward pass."""
    model.zero_grad()
    device = next(model.parameters()).device.type
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        value = loss(model, batch)
    value.backward()


def prior_loss(prior: DQTransformer, sequences: Sequences) -> Tensor:
    """Of what is no padding."""
    predictions = prior(sequences)
    real = predictions.targets.contents != prior.spec.codebook_size
    losses = F.cross_entropy(predictions.contents, predictions.targets.contents, reduction="none")
    losses = losses + F.cross_entropy(predictions.positions, predictions.targets.positions, reduction="none")
    return (losses * real).sum() / real.sum()


def gpt2_loss(model: GPT2LMHeadModel, codes: Codes) -> Tensor:
    """Of contents alone, each image padded to the longest; being causal, it needs no mask."""
    pad = model.config.pad_token_id
    images = pad_sequence(list(codes.ids.split(codes.lengths.tolist())), batch_first=True, padding_value=pad)
    read = F.pad(images[:, :-1], (1, 0), value=model.config.bos_token_id)
    logits = model(read, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), images.flatten(), ignore_index=pad)


def padded(sequences: Sequences, spec: CodeSpec) -> Sequences:
    """The same tokens with each granularity's part padded to the longest of the batch."""
    lengths = sequences.packing.lengths
    tracks: dict[str, list[Tensor]] = {"contents": [], "positions": [], "granularities": []}
    for granularity in range(spec.granularities):
        pads = {"contents": spec.codebook_size, "positions": spec.positions(granularity), "granularities": granularity}
        chosen = [part == granularity for part in sequences.granularities.split(lengths)]
        for track, columns in tracks.items():
            parts = [part[mine] for part, mine in zip(getattr(sequences, track).split(lengths), chosen, strict=True)]
            columns.append(pad_sequence(parts, batch_first=True, padding_value=pads[track]))
    whole = {track: torch.cat(columns, dim=1) for track, columns in tracks.items()}
    images, longest = whole["contents"].shape
    packing = Packing(torch.full((images,), longest, device=whole["contents"].device))
    return Sequences(**{track: values.flatten() for track, values in whole.items()}, packing=packing)
