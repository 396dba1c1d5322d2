"""At which quality a codec takes a given rate, so that it is compared with a tokenizer at equal bits."""

from __future__ import annotations

from vltok.errors import UserError
from vltok.evaluation.codecs import HIGHEST_QUALITY, Codec
from vltok.evaluation.coders import CodecCoder
from vltok.evaluation.gathering import gather
from vltok.evaluation.measurement import ProcessShare
from vltok.measures.pixels import to_bytes
from vltok.pictures.images import ExportSource

_QUALITIES_ABOVE = 3


def find_quality(codec: Codec, bits_per_pixel: float, source: ExportSource, share: ProcessShare) -> int:
    """The quality at which a codec comes nearest to a rate without exceeding it, in the mean over the pictures.

    They are coded once for each quality that is tried: those of a bisection, and some above what it finds, since a
    higher quality takes a little less now and then.

    Raises:
        UserError: Even the lowest quality takes more, or there is no picture.
    """

    def rate(quality: int) -> float:
        coder, rates = CodecCoder(codec, quality), []
        for batch in share.batches(source):
            pixels = to_bytes(batch.images)
            rates += (coder(pixels).bits.double() / pixels[0, 0].numel()).tolist()
        every = gather(rates)
        if not every:
            raise UserError("there is no picture to measure")
        return sum(every) / len(every)

    lowest, highest = 1, HIGHEST_QUALITY[codec]
    tried = {lowest: rate(lowest)}
    if tried[lowest] > bits_per_pixel:
        raise UserError(
            f"--bits-per-pixel {bits_per_pixel:g} is too few for {codec}: its lowest quality takes {tried[1]:.4g} on "
            "these pictures, headers and tables included"
        )
    while lowest < highest:
        middle = (lowest + highest + 1) // 2
        tried[middle] = rate(middle)
        if tried[middle] <= bits_per_pixel:
            lowest = middle
        else:
            highest = middle - 1
    for above in range(lowest + 1, min(lowest + _QUALITIES_ABOVE, HIGHEST_QUALITY[codec]) + 1):
        tried[above] = tried[above] if above in tried else rate(above)
    within = [quality for quality, taken in tried.items() if taken <= bits_per_pixel]
    return max(within, key=lambda quality: (tried[quality], quality))
