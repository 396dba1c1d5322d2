"""A tokenizer that needs no training: each cell of 4 × 4 pixels has its mean grey, of 64."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.interfaces import Tokenizer, TokenizerOutput
from vltok.tokenizers.quantizers import VectorQuantizer


class Grey(Tokenizer):
    """It holds a quantizer, as its codebook."""

    def __init__(self, levels: int = 64) -> None:
        super().__init__()
        self.quantizer = VectorQuantizer(levels, 1)
        self.quantizer.codebook.data.copy_(torch.linspace(-1, 1, levels)[:, None])

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(self.quantizer.size, (4,))

    @property
    def divisor(self) -> int:
        return 4

    @torch.no_grad()
    def encode_batch(self, images: Tensor) -> Codes:
        ids = self.quantizer(F.avg_pool2d(images.mean(dim=1, keepdim=True), 4)).ids
        return Codes.from_code_map(ids, torch.zeros_like(ids), self.spec)

    def decode_batch(self, codes: Codes) -> Tensor:
        return F.interpolate(self.quantizer.lookup(codes.to_code_map(self.spec)), scale_factor=4).expand(-1, 3, -1, -1)

    def forward(self, images: Tensor) -> TokenizerOutput:
        codes = self.encode_batch(images)
        return TokenizerOutput(self.decode_batch(codes), codes, {})
