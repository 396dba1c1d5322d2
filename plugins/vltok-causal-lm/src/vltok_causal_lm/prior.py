"""The prior: any causal language model over serialized codes (`vltok_causal_lm.serialization`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from vltok.codes import Codes, CodeSpec
from vltok.drawing.batches import BatchDrawing, WantedImages
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import VariableLengthSampling
from vltok.drawing.sampling import Guidance
from vltok.errors import UserError
from vltok.interfaces import Prior, PriorLoss, Standalone
from vltok.priors.losses import nats_per_code
from vltok_causal_lm.drawing import AllComplete, LegalDraw
from vltok_causal_lm.language_models import (
    LoRA,
    adapt,
    evaluating,
    from_architecture,
    from_pretrained,
    require_causal,
    settings_of,
)
from vltok_causal_lm.serialization import Grammar, serialization_of

# what cross entropy leaves out
_IGNORED = -100


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the model says of every token of each image, one image after another, without their starts.

    Attributes:
        choices: Logits of going on with a code, and of each token of structure, `[t c]`; -inf for illegal ones.
        contents: Logits of each code, given that one follows, `[t v]`.
        tokens: What was to be predicted, `[t]`.
    """

    choices: Float[Tensor, "t c"]
    contents: Float[Tensor, "t v"]
    tokens: Int[Tensor, " t"]


class CausalLM(Prior, Standalone):
    """A Hugging Face causal language model as a prior over the codes of any tokenizer, on a grid or not.

    The model reads an image's codes as one flat sequence. Illegal tokens have no probability, in training, in
    evaluation and in drawing alike, so that its bits compare with those of vltok's own priors. The shorter sequences of
    a batch are filled up at the right, where a causal model does not look.

    Args:
        spec: The codes that it models: on a grid of regions that is known, or on none and of a length that is.
        architecture: The type of a model to train from scratch, such as ``llama`` or ``gpt2``: the `model_type` of
            transformers. Give either this or `pretrained`.
        options: Options of the model's configuration, such as ``{hidden_size: 256, num_hidden_layers: 4}``; what is
            left out is as transformers has it. With `pretrained` they change what its configuration says.
        pretrained: A folder with a pretrained model, or the id of one on the Hugging Face Hub, of which only
            safetensors are read. Its vocabulary of text gives way to a fresh one of codes.
        lora: Train low-rank adapters and the embeddings alone; all weights where None.
        classes: Number of classes; None for an unconditional model.
        label_dropout: Probability with which training hides an image's class. Above 0 the model also learns the
            unconditional distribution, which classifier-free guidance needs.
        checkpointing: Recompute blocks in the backward pass: less memory, a third more time.

    Raises:
        UserError: Codes of unknown length, neither or both of `architecture` and `pretrained`, options that the model
            does not have, or a model that is not to be had, reads too few tokens or looks ahead.
    """

    sampling = VariableLengthSampling
    former_arguments: ClassVar = {
        key: (f"spec.{key}",) for key in ("codebook_size", "factors", "regions", "max_length")
    }

    def __init__(
        self,
        spec: CodeSpec,
        architecture: str | None = None,
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        lora: LoRA | None = None,
        classes: int | None = None,
        label_dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if (architecture is None) == (pretrained is None):
            raise UserError(
                f"architecture is {architecture} and pretrained is {pretrained}: give one of them, as in "
                "architecture: llama"
            )
        self.spec = spec
        self.serialization = serialization_of(spec)
        self.conditioning = Conditioning(classes, label_dropout)
        self.first_start = spec.codebook_size + self.serialization.structures
        vocabulary, longest = self.first_start + self.conditioning.starts, self.serialization.longest
        if pretrained is None:
            self.model = from_architecture(architecture, options or {}, vocabulary, longest)
        else:
            self.model = from_pretrained(pretrained, options or {}, vocabulary, longest)
        require_causal(self.model)
        if lora is not None:
            adapt(self.model, lora)
        if checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def standalone_arguments(self) -> Mapping[str, Any]:
        """The model's whole configuration, for a bundle that needs no pretrained model."""
        architecture, options = settings_of(self.model)
        return {"architecture": architecture, "options": options, "pretrained": None}

    def forward(self, codes: Codes) -> Predictions:
        """Predict every token of each image from those before it."""
        serialization = self.serialization
        sequences = serialization(codes)
        starts = self.first_start + self.conditioning.of_codes(codes, self.training)
        read = torch.cat([starts[:, None], sequences.tokens[:, :-1]], dim=1)
        # No mask: a causal model sees nothing of what stands to the right, and only there sequences were filled up.
        logits = self.model(input_ids=read, use_cache=False).logits[sequences.present].float()
        taken = serialization.taken(sequences.tokens)
        before = (taken.cumsum(1) - taken)[sequences.present]
        legal = serialization.grammar(VariableLengthSampling()).legal(before)
        return Predictions(
            choices=serialization.choice_logits(logits).masked_fill(~legal, -torch.inf),
            contents=logits[:, : serialization.codebook_size],
            tokens=sequences.tokens[sequences.present],
        )

    def loss(self, codes: Codes) -> PriorLoss:
        """The negative log-likelihood in nats a code; `structure` is that of granularities, or of lengths."""
        predictions = self(codes)
        choices = self.serialization.choices(predictions.tokens)
        structure = F.cross_entropy(predictions.choices, choices, reduction="sum")
        codes_alone = predictions.tokens.masked_fill(choices > 0, _IGNORED)
        content = F.cross_entropy(predictions.contents, codes_alone, ignore_index=_IGNORED, reduction="sum")
        return nats_per_code(
            codes,
            {"structure": structure, "content": content},
            {"structure": len(codes) * self.serialization.structures_per_image, "content": codes.ids.numel()},
        )

    def drawing(self, sampling: VariableLengthSampling) -> BatchDrawing:
        """Draws batch by batch, each until its last image ends. Every draw decodes: none but legal tokens are drawn.

        The temperature, top-k and top-p of positions are those of choices: a region's granularity, or whether an image
        ends.

        Raises:
            UserError: A length that no image can have.
        """
        return BatchDrawing(partial(self._draw, self.serialization.grammar(sampling), sampling))

    def _draw(self, grammar: Grammar, sampling: VariableLengthSampling, images: WantedImages) -> Codes:
        """Draw images at the same time."""
        guidance = Guidance(sampling.guidance)
        starts = self.first_start + guidance.labels(images.labels, self.classes)[:, None]
        half = torch.autocast(starts.device.type, torch.bfloat16, enabled=sampling.precision == "bfloat16")
        with evaluating(self), half:
            drawn = self.model.generate(
                starts,
                attention_mask=torch.ones_like(starts),
                # the likeliest token, of one that `LegalDraw` leaves
                generation_config=GenerationConfig(do_sample=False, max_new_tokens=self.serialization.longest),
                logits_processor=LogitsProcessorList(
                    [LegalDraw(self.serialization, grammar, sampling, guidance, images.streams)]
                ),
                stopping_criteria=StoppingCriteriaList([AllComplete(self.serialization, grammar)]),
            )
        guidance.watch.require_numbers()
        return self.serialization.codes(drawn[: len(images)])
