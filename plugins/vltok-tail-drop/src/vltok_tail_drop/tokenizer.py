"""TailDrop: an image as one sequence of codes, of which any number may be kept, from the first on.

Axis letters: b image, c channel, n code of an image, p decoded image, H W pixels.
"""

import contextlib
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.interfaces import Adversarial, FixedSize, LengthTargeted, Quantizer, Steerable, Tokenizer, TokenizerOutput
from vltok.nn.precision import full_float32
from vltok_tail_drop.lengths import LengthPolicy, Observing, pixel_errors
from vltok_tail_drop.standard import Scale, Standard
from vltok_tail_drop.steering import PrefixSteps
from vltok_tail_drop.transformers import WaveDecoder, WaveEncoder

#: The most pixels that are decoded at once where lengths of images are tried (at 256², 64 images).
MOST_PIXELS = 2**22


class TailDrop(Tokenizer, FixedSize, Adversarial, LengthTargeted, Steerable):
    """A 1D tokenizer whose codes are ordered by how much they matter.

    ```
            ┌───────────┐ vectors ┌─────────┐ codes ┌─────────────┐       ┌───────────┐
    images ►│WaveEncoder├─────────►quantizer├───────►drop the tail├─Codes─►WaveDecoder├─► images
            └───────────┘         └─────────┘       └──────▲──────┘       └───────────┘
                         training: at a length drawn evenly │ else: as the length policy chooses
    ```

    Training drops the tail of each image's codes (nested dropout: Rippel et al., 2014,
    https://arxiv.org/abs/1402.0915; for images as token sequences: ElasticTok, https://arxiv.org/abs/2410.08368, and
    FlexTok, https://arxiv.org/abs/2502.13967). So every prefix is a description of the whole image, and the length is
    free: `length_policy` may be replaced after training.

    Codes lie on no grid and do not say how large the image was; a tokenizer has one image size.

    Args:
        quantizer: Holds the codebook.
        length_policy: Chooses how many codes an image keeps: a class of `vltok_tail_drop.lengths`.
        image_size: Side of the images in pixels.
        max_length: The most codes of an image, at least 2 and at most as many as it has patches.
        backbone: The name of a timm `VisionTransformer`, of whose blocks the encoder is built; the decoder has as wide
            ones.
        patch_size: Side of the patches in pixels; null for the backbone's own.
        encoder_depth: How many of the backbone's blocks are used, the first ones; null for all.
        decoder_depth: Blocks of the decoder.
        pretrained: Whether the encoder starts from timm's pretrained weights.

    Raises:
        UserError: A length that no image can have, an unknown backbone, or sizes that do not fit each other.
    """

    def __init__(
        self,
        quantizer: Quantizer,
        length_policy: LengthPolicy,
        image_size: int = 256,
        max_length: int = 256,
        backbone: str = "vit_small_patch16_224",
        patch_size: int | None = None,
        encoder_depth: int | None = None,
        decoder_depth: int = 12,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if max_length < 2:
            raise UserError(f"tokenizer.max_length must be at least 2, not {max_length}: else there is no tail to drop")
        if decoder_depth < 1:
            raise UserError(f"tokenizer.decoder_depth must be at least 1, not {decoder_depth}")
        self.encoder = WaveEncoder(backbone, image_size, max_length, patch_size, encoder_depth, pretrained)
        self.project = nn.Linear(self.encoder.width, quantizer.dimension)
        self.standard = Standard(max_length, quantizer.dimension)
        self.quantizer = quantizer
        self.decoder = WaveDecoder(
            max_length,
            quantizer.dimension,
            image_size,
            self.encoder.patch_size,
            self.encoder.width,
            self.encoder.heads,
            decoder_depth,
        )
        self.length_policy = length_policy
        self._image_size = image_size, image_size
        self._spec = CodeSpec(quantizer.size, max_length=max_length, codebooks=quantizer.codebooks)
        self._check_length()

    @property
    def spec(self) -> CodeSpec:
        return self._spec

    @property
    def divisor(self) -> int:
        return self.encoder.patch_size

    @property
    def image_size(self) -> tuple[int, int]:
        return self._image_size

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.pixels.weight

    def expected_length(self, height: int, width: int) -> float | None:
        """The mean code length that the length policy asks for.

        Raises:
            UserError: Images are of another size.
        """
        self._check_size(height, width)
        return self.length_policy.expected_length

    @torch.no_grad()
    @full_float32()
    def encode_batch(self, images: Float[Tensor, "b 3 H W"]) -> Codes:
        """The codes of images, as many of each as the length policy chooses, without gradient.

        Raises:
            UserError: The images are of another size, or the length policy asks for more codes than there are.
        """
        self._check_size(*images.shape[2:])
        with _evaluating(self):
            ids = self._ids(images)
            lengths = self._choose(images, ids)
        return Codes(ids[self._kept(lengths)], lengths)

    @torch.no_grad()
    @full_float32()
    def decode_batch(self, codes: Codes) -> Float[Tensor, "b 3 H W"]:
        """The images of codes, of any mix of lengths, without gradient."""
        kept = self._kept(codes.lengths)
        ids = kept.new_zeros((*kept.shape, *self._spec.id_shape), dtype=torch.long)
        ids[kept] = codes.ids.long()
        with _evaluating(self):
            return self._paint(self.quantizer.lookup(ids[:, None]), kept, self.standard.average)

    @torch.no_grad()
    def candidates(self, images: Float[Tensor, "b 3 H W"]) -> PrefixSteps:
        """What images could be encoded to, each a prefix of the next; without gradient.

        Raises:
            UserError: The images are of another size.
        """
        self._check_size(*images.shape[2:])
        with _evaluating(self), full_float32():
            ids = self._ids(images)
        return PrefixSteps(ids, lambda: self.encode_batch(images), lambda: self.errors(images))

    @torch.no_grad()
    def errors(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b n"]:
        """The error of images at each length, 1 to `max_length` (see `vltok_tail_drop.lengths`), without gradient.

        Raises:
            UserError: The images are of another size.
        """
        self._check_size(*images.shape[2:])
        with _evaluating(self):
            ids = self._ids(images)
            return self._errors(images, ids, torch.arange(1, ids.shape[1] + 1).expand(len(images), -1))

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> TokenizerOutput:
        """Encode and decode with gradients; in training at lengths drawn evenly from 1 to `max_length`.

        Losses: ``quantization``, of the codes that are kept.
        """
        self._check_size(*images.shape[2:])
        longest = self._spec.longest_length
        vectors = self._vectors(images)
        scale = self.standard(vectors)
        laid = _on_a_row(scale.of(vectors))
        if self.training:
            lengths = torch.randint(1, longest + 1, (len(images),), device=images.device)
        else:
            with torch.no_grad():
                lengths = self._choose(images, self.quantizer(laid).ids[:, 0])
        kept = self._kept(lengths)
        quantized = self.quantizer(laid, kept[:, None, None].float())
        reconstruction = self._paint(quantized.vectors, kept, scale)
        if self.training and isinstance(self.length_policy, Observing):
            self.length_policy.observe(lengths, pixel_errors(reconstruction.detach(), images), longest)
        codes = Codes(quantized.ids[:, 0][kept], lengths)
        return TokenizerOutput(reconstruction, codes, {"quantization": quantized.loss})

    def _vectors(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b n c"]:
        """What is put on a scale and quantized."""
        return self.project(self.encoder(images)).float()

    def _ids(self, images: Float[Tensor, "b 3 H W"]) -> Int[Tensor, "b n *q"]:
        """All codes of images; the quantizer must be in evaluation mode."""
        return self.quantizer(_on_a_row(self.standard.average.of(self._vectors(images)))).ids[:, 0]

    def _paint(
        self, vectors: Float[Tensor, "p c 1 n"], kept: Bool[Tensor, "p n"], scale: Scale
    ) -> Float[Tensor, "p 3 H W"]:
        """The images of vectors on a scale; those that were dropped stand at the mean."""
        return self.decoder(scale.undo(vectors[:, :, 0].mT * kept[..., None]))

    def _choose(self, images: Float[Tensor, "b 3 H W"], ids: Int[Tensor, "b n *q"]) -> Int[Tensor, " b"]:
        """The length of each image, as the policy wants it."""
        self._check_length()
        longest = self._spec.longest_length
        lengths = self.length_policy(len(images), longest, lambda at: self._errors(images, ids, at))
        return lengths.to(images.device, non_blocking=True)

    def _errors(
        self, images: Float[Tensor, "b 3 H W"], ids: Int[Tensor, "b n *q"], lengths: Int[Tensor, "b m"]
    ) -> Float[Tensor, "b m"]:
        """The errors of each image at some lengths, decoded in pieces of bounded size."""
        image = torch.arange(len(ids), device=ids.device).repeat_interleave(lengths.shape[1])
        vectors = self.quantizer.lookup(ids[:, None])
        kept = self._kept(lengths.flatten().to(ids.device, non_blocking=True))
        piece = max(1, MOST_PIXELS // images[0, 0].numel())
        return torch.cat(
            [
                pixel_errors(self._paint(vectors[which], cut, self.standard.average), images[which])
                for which, cut in zip(image.split(piece), kept.split(piece), strict=True)
            ]
        ).view(lengths.shape)

    def _kept(self, lengths: Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
        """Which codes of each image are kept."""
        return torch.arange(self._spec.longest_length, device=lengths.device) < lengths[:, None]

    def _check_length(self) -> None:
        expected = self.length_policy.expected_length
        if expected is not None and expected > self._spec.longest_length:
            raise UserError(
                f"length_policy.length is {expected:g}, but images have at most {self._spec.longest_length} codes "
                "(tokenizer.max_length)"
            )

    def _check_size(self, height: int, width: int) -> None:
        if (height, width) != self._image_size:
            side = self._image_size[0]
            raise UserError(
                f"images of {height} × {width} pixels do not fit: this tokenizer takes {side} × {side} only "
                "(tokenizer.image_size)"
            )


def _on_a_row(vectors: Float[Tensor, "b n c"]) -> Float[Tensor, "b c 1 n"]:
    """Vectors as quantizers take them, which are made for maps."""
    return vectors.mT[:, :, None]


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and each of its parts back into its own mode afterwards."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
