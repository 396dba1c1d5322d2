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

from vltok.code_maps import require_ids
from vltok.codes import Codes, CodeSpec
from vltok.drawing.batches import BatchDrawing, WantedImages
from vltok.drawing.conditioning import Conditioning
from vltok.drawing.config import VariableLengthSampling
from vltok.drawing.sampling import Guidance
from vltok.errors import UserError
from vltok.interfaces import Prior, PriorLoss, Standalone
from vltok.priors.losses import nats_per_code
from vltok_causal_lm.drawing import AllComplete, Beside, LegalDraw
from vltok_causal_lm.language_models import (
    LoRA,
    adapt,
    evaluating,
    from_architecture,
    from_pretrained,
    require_causal,
    settings_of,
)
from vltok_causal_lm.serialization import Grammar, Sequences, serialization_of
from vltok_causal_lm.texts import TextAlone, Texts, TextTokens, of_texts, to_the_right

# what cross entropy leaves out
_IGNORED = -100


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the model says of every token of each image, one image after another, without their starts.

    Attributes:
        choices: Logits of going on with a code, and of each token of structure, `[t c]`; -inf for illegal ones.
        contents: Logits of each code, given that one follows, `[t v]`.
        tokens: What was to be predicted, `[t]`.
        captions: Logits of each token of the texts that follow their images, `[s w]`.
        words: What was to be predicted of these, `[s]`.
    """

    choices: Float[Tensor, "t c"]
    contents: Float[Tensor, "t v"]
    tokens: Int[Tensor, " t"]
    captions: Float[Tensor, "s w"]
    words: Int[Tensor, " s"]


class CausalLM(Prior, Standalone):
    """A Hugging Face causal language model as a prior over the codes of any tokenizer, on a grid or not.

    The model reads an image's codes as one flat sequence. Illegal tokens have no probability, in training, in
    evaluation and in drawing alike, so that its bits compare with those of vltok's own priors. The shorter sequences of
    a batch are filled up at the right, where a causal model does not look.

    With `texts`, codes stand beside the model's own tokens of text, and it learns both directions: codes after a text
    (their likelihood is that of the image, given the text), and in training a share of texts after their codes.

    ```
    a cat ⟨start⟩ ⟨coarse⟩ 7 ⟨fine⟩ 3 1 4 1 …                 codes are learned
    ⟨start, no text⟩ ⟨coarse⟩ 7 ⟨fine⟩ 3 1 4 1 … a cat ⟨end⟩   the text is learned
    ```

    Args:
        spec: The codes that it models: on a grid of regions that is known, or on none and of a length that is.
        architecture: The type of a model to train from scratch, such as ``llama`` or ``gpt2``: the `model_type` of
            transformers. Give either this or `pretrained`.
        options: Options of the model's configuration, such as ``{hidden_size: 256, num_hidden_layers: 4}``; what is
            left out is as transformers has it. With `pretrained` they change what its configuration says.
        pretrained: A folder with a pretrained model, or the id of one on the Hugging Face Hub, of which only
            safetensors are read. Without `texts`, its vocabulary of text gives way to a fresh one of codes.
        lora: Train low-rank adapters and the embeddings alone; all weights where None.
        classes: Number of classes; None for an unconditional model.
        label_dropout: Probability with which training hides an image's class or text. Above 0 the model also learns the
            unconditional distribution, which classifier-free guidance needs.
        checkpointing: Recompute blocks in the backward pass: less memory, a third more time.
        texts: How texts are read and written, beside which codes stand; None reads none.

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
        texts: Texts | None = None,
    ) -> None:
        super().__init__()
        if (architecture is None) == (pretrained is None):
            raise UserError(
                f"architecture is {architecture} and pretrained is {pretrained}: give one of them, as in "
                "architecture: llama"
            )
        self.spec = spec
        self.serialization = serialization_of(spec)
        self.text_tokens = None if texts is None else TextTokens(texts, pretrained)
        self.conditioning = Conditioning(classes, label_dropout, self.text_tokens)
        words = 0 if self.text_tokens is None else self.text_tokens.size
        self.first_code = words
        self.first_start = words + spec.codebook_size + self.serialization.structures
        vocabulary, longest = self.first_start + self.conditioning.starts, self.serialization.longest
        if texts is not None:
            self.end, vocabulary, longest = vocabulary, vocabulary + 1, longest + texts.longest + 1
        if pretrained is None:
            self.model = from_architecture(architecture, options or {}, vocabulary, longest)
        else:
            self.model = from_pretrained(pretrained, options or {}, vocabulary, longest, words)
        require_causal(self.model)
        if lora is not None:
            adapt(self.model, lora)
        if checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def standalone_arguments(self) -> Mapping[str, Any]:
        """The model's whole configuration, for a bundle that needs no pretrained model."""
        architecture, options = settings_of(self.model)
        built = {"architecture": architecture, "options": options, "pretrained": None}
        return built if self.text_tokens is None else {**built, "texts": self.text_tokens.standalone_arguments}

    def forward(self, codes: Codes) -> Predictions:
        """Predict every token of each image from those before it; in training, of some the text from the image."""
        serialization = self.serialization
        require_ids(codes.ids, self.spec)
        sequences = serialization(codes)
        labels = self.conditioning.of_codes(codes, self.training)
        tokens, present = sequences.tokens + self.first_code, sequences.present
        captioned, before, after = torch.zeros_like(labels, dtype=torch.bool), tokens[:, :0], tokens[:, :0]
        if self.text_tokens is not None:
            described = labels == 0
            if self.training:
                captioned = described & (
                    torch.rand(labels.shape, device=labels.device) < self.text_tokens.texts.captions
                )
            texts = codes.require_texts()
            before = self.text_tokens.padded(texts, labels.device).masked_fill(~(described & ~captioned)[:, None], -1)
            after = self.text_tokens.padded(texts, labels.device, self.end).masked_fill(~captioned[:, None], -1)
            labels = labels.masked_fill(captioned, self.conditioning.nothing)
        starts = (self.first_start + labels)[:, None]
        laid = torch.cat([before, starts, tokens.masked_fill(~present, -1), after], dim=1)
        # which tokens are learned: 1 the codes of an image, 2 its text
        learned = torch.cat(
            [
                torch.zeros_like(before),
                torch.zeros_like(starts),
                (present & ~captioned[:, None]).long(),
                torch.full_like(after, 2),
            ],
            dim=1,
        )
        chosen = laid >= 0
        laid, learned = (Sequences.of(values, chosen).tokens for values in (laid, learned))
        # No mask: a causal model sees nothing of what stands to the right, and only there sequences were filled up.
        logits, following = self.model(input_ids=laid[:, :-1], use_cache=False).logits, learned[:, 1:]
        taken = serialization.taken(sequences.tokens)
        predicted = present & ~captioned[:, None]
        legal = serialization.grammar(VariableLengthSampling()).legal((taken.cumsum(1) - taken)[predicted])
        of_codes = logits[following == 1][:, self.first_code :].float()
        return Predictions(
            choices=serialization.choice_logits(of_codes).masked_fill(~legal, -torch.inf),
            contents=of_codes[:, : serialization.codebook_size],
            tokens=sequences.tokens[predicted],
            captions=logits[following == 2].float(),
            words=laid[:, 1:][following == 2],
        )

    def loss(self, codes: Codes) -> PriorLoss:
        """The negative log-likelihood in nats a code, with texts that of codes given the text; `structure` is that of
        granularities, or of lengths.

        In training, a share of texts is learned after their codes (`Texts.captions`): every code and every token of
        these counts the same, and the whole is no likelihood of codes.
        """
        predictions = self(codes)
        choices = self.serialization.choices(predictions.tokens)
        structure = F.cross_entropy(predictions.choices, choices, reduction="sum")
        codes_alone = predictions.tokens.masked_fill(choices > 0, _IGNORED)
        content = F.cross_entropy(predictions.contents, codes_alone, ignore_index=_IGNORED, reduction="sum")
        structures = len(codes) * self.serialization.structures_per_image
        if self.text_tokens is None or not (self.training and self.text_tokens.texts.captions):
            counts = {"structure": structures, "content": codes.ids.numel()}
            return nats_per_code(codes, {"structure": structure, "content": content}, counts)
        nats = {"structure": structure, "content": content}
        captions = of_texts(predictions.captions, self.first_code, self.end)
        nats["caption"] = F.cross_entropy(captions, predictions.words, reduction="sum")
        learned = {"content": (choices == 0).sum(), "structure": (choices > 0).sum()}
        learned["caption"] = torch.full_like(learned["content"], len(predictions.words))
        weight = learned["content"] + learned["caption"]
        return PriorLoss(
            total=torch.stack(list(nats.values())).sum() / weight,
            parts={name: cost.detach() / learned[name].clamp(min=1) for name, cost in nats.items()},
            counts={name: count.clamp(min=1) for name, count in learned.items()},
            weight=weight,
            likelihood=False,
        )

    @torch.no_grad()
    def captions(self, codes: Codes) -> tuple[str, ...]:
        """What describes each image: its likeliest text, token by token.

        Args:
            codes: The images, on the prior's device; their own texts are not read.

        Raises:
            UserError: The prior has learned no texts.
        """
        if self.text_tokens is None or not self.text_tokens.texts.captions:
            raise UserError("this prior writes no captions: train it with texts, and texts.captions above 0")
        sequences, nothing = self.serialization(codes), self.first_start + self.conditioning.nothing
        starts = torch.full_like(codes.lengths[:, None], nothing, dtype=torch.long)
        tokens = (sequences.tokens + self.first_code).masked_fill(~sequences.present, -1)
        prompts, there = to_the_right(torch.cat([starts, tokens], dim=1))
        options = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.text_tokens.texts.longest,
            eos_token_id=self.end,
            pad_token_id=self.end,
        )
        alone = LogitsProcessorList([TextAlone(self.first_code, self.end)])
        with evaluating(self):
            drawn = self.model.generate(
                prompts, attention_mask=there.long(), generation_config=options, logits_processor=alone
            )
        rows = drawn[:, prompts.shape[1] :].tolist()
        return tuple(self.text_tokens.text(row[: row.index(self.end)] if self.end in row else row) for row in rows)

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
        labels = guidance.labels(images.labels, self.conditioning.nothing)
        starts = self.first_start + labels[:, None]
        if self.text_tokens is not None:
            texts = guidance.rows(images.conditions).masked_fill((labels == self.conditioning.nothing)[:, None], -1)
            starts = torch.cat([texts, starts], dim=1)
        prompts, there = to_the_right(starts)
        beside = Beside(self.first_code, prompts.shape[1] - 1)
        half = torch.autocast(starts.device.type, torch.bfloat16, enabled=sampling.precision == "bfloat16")
        with evaluating(self), half:
            drawn = self.model.generate(
                prompts,
                attention_mask=there.long(),
                # the likeliest token, of one that `LegalDraw` leaves
                generation_config=GenerationConfig(do_sample=False, max_new_tokens=self.serialization.longest),
                logits_processor=LogitsProcessorList(
                    [LegalDraw(self.serialization, grammar, sampling, guidance, images.streams, beside)]
                ),
                stopping_criteria=StoppingCriteriaList([AllComplete(self.serialization, grammar, beside)]),
            )
        guidance.watch.require_numbers()
        return self.serialization.codes(beside.tokens(drawn[: len(images)]))
