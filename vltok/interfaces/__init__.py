"""The interfaces that components implement. A class here is abstract; a class that implements one is final.

```
images [b 3 H W] ── tokenizer.encode ──► Codes ── prior.loss ──► PriorLoss
labels, texts, embeddings ── prior.sample ──► Codes ── tokenizer.decode ──► images
```

Images are floats in [-1, 1]. Features and maps go **from coarse to fine**: index 0 is the coarsest granularity.
Axis letters: b image, c channel, h w grid of regions, H W pixels or the finest grid, k granularity.
"""

from vltok.drawing.config import SamplingConfig
from vltok.drawing.keeping import Kept
from vltok.interfaces.bundled import Bundled, Standalone
from vltok.interfaces.gate import Calibrated, Constant, Foreseeing, Gate, GateDecision, Taught
from vltok.interfaces.losses import Discriminator, Perceptual
from vltok.interfaces.parts import Budget, Decoder, Encoder, Quantized, Quantizer
from vltok.interfaces.prior import AnyGrid, Choose, Codable, Inpaints, Ordered, Prior, PriorLoss
from vltok.interfaces.steering import Candidates, Proportioned, Steerable
from vltok.interfaces.text_encoder import TextEncoder
from vltok.interfaces.tokenizer import (
    Adaptive,
    Adversarial,
    Alternatives,
    FixedSize,
    LengthTargeted,
    RatioTargeted,
    Tokenizer,
    TokenizerOutput,
)

__all__ = [
    "Adaptive",
    "Adversarial",
    "Alternatives",
    "AnyGrid",
    "Budget",
    "Bundled",
    "Calibrated",
    "Candidates",
    "Choose",
    "Codable",
    "Constant",
    "Decoder",
    "Discriminator",
    "Encoder",
    "FixedSize",
    "Foreseeing",
    "Gate",
    "GateDecision",
    "Inpaints",
    "Kept",
    "LengthTargeted",
    "Ordered",
    "Perceptual",
    "Prior",
    "PriorLoss",
    "Proportioned",
    "Quantized",
    "Quantizer",
    "RatioTargeted",
    "SamplingConfig",
    "Standalone",
    "Steerable",
    "Taught",
    "TextEncoder",
    "Tokenizer",
    "TokenizerOutput",
]
