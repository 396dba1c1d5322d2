"""What each figure is called, its unit, which way is better, and what it means: said here, and nowhere else.

Console, Markdown, model cards, plots and pages all read it. Files on disk keep the figures' keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

_ARROWS = {"higher": "↑", "lower": "↓", None: ""}


@dataclass(frozen=True)
class Meaning:
    """What readers must know of a figure.

    Attributes:
        name: What people call it.
        text: What it says, in a line; empty for a figure that vltok does not know, such as a plug-in's.
        group: The heading under which a report shows it.
        unit: Of its numbers; empty where they have none.
        better: Which numbers are better; None where neither are.
        form: How its numbers are written, in Python's format language.
    """

    name: str
    text: str = ""
    group: str = "Others"
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    form: str = ".4g"

    @property
    def arrow(self) -> str:
        """``↑`` where higher is better, ``↓`` where lower is; else nothing."""
        return _ARROWS[self.better]

    @property
    def label(self) -> str:
        """The name with its unit: ``PSNR [dB]``."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    @property
    def title(self) -> str:
        """The name with its unit and direction: ``PSNR [dB] ↑``."""
        return f"{self.label} {self.arrow}".strip()

    def shown(self, number: float) -> str:
        """A number with its unit: ``24.13 dB``."""
        return f"{format(number, self.form)} {self.unit}".strip()


def meaning(figure: str) -> Meaning:
    """What a figure's key means; of one that rests on a feature network, its name ends in that network's.

    A figure that is not known, such as one of a plug-in, is called by its key.
    """
    key, slash, network = figure.partition("/")
    found = MEANINGS.get(key) or _of_family(key)
    if found is None:
        return Meaning(key.replace("_", " ") if figure.isidentifier() else figure)
    return replace(found, name=f"{found.name}, {network}") if slash else found


def explained(figure: str) -> bool:
    """Whether it is told here what a figure means."""
    return bool(meaning(figure).text)


def _of_family(key: str) -> Meaning | None:
    if wrong := re.fullmatch(r"perturbed_(\d+)_(\w+)", key):
        inner = meaning(wrong[2])
        text = f"The same, where {wrong[1]}% of the codes are replaced by near ones, as a generator errs."
        return replace(inner, name=f"{inner.name} with {wrong[1]}% wrong codes", text=inner.text and text, group=WRONG)
    for pattern, family in _FAMILIES.items():
        if match := re.fullmatch(pattern, key):
            parts = [part.replace("_", " ") for part in match.groups()]
            return replace(family, name=family.name.format(*parts), text=family.text.format(*parts))
    return None


QUALITY, SETS, COST = "Quality", "Distances between sets of pictures", "Cost"
_BOOK, _PLACES, ODDS, SPEED = "Use of the codebook", "Where the codes go", "How predictable the codes are", "Speed"
WRONG = "Under wrong codes"
#: Which group stands where in a report.
GROUPS = (QUALITY, SETS, WRONG, COST, _PLACES, _BOOK, ODDS, SPEED, "Others")

_FRECHET = "Distance of the two sets as normal distributions of the network's features; 0 for equal sets."
_KERNEL = "Distance of the two sets by a kernel of the network's features, unbiased at few pictures; mean of subsets."
_SCORE = "Whether a classifier is sure of each picture, and sees many classes in all."
_RANKS = "Rank correlation, from -1 to 1, of a region's granularity with"

# fmt: off
MEANINGS: Mapping[str, Meaning] = {
    "psnr": Meaning(
        "PSNR", "How near the pixels come back, mean over the pictures; +6 dB halves the error.",
        QUALITY, "dB", "higher", ".2f",
    ),
    "psnr_pooled": Meaning(
        "PSNR of all pictures together", "PSNR of the mean squared error over all, where hard pictures count more.",
        QUALITY, "dB", "higher", ".2f",
    ),
    "ssim": Meaning(
        "SSIM", "Whether local contrast and structure come back; 1 for equal pictures.",
        QUALITY, "", "higher", ".3f",
    ),
    "lpips": Meaning(
        "LPIPS", "Difference as people see it, by features of VGG16; 0 for equal pictures.",
        QUALITY, "", "lower", ".3f",
    ),
    "feature_distance": Meaning(
        "feature distance", "Difference of each picture's features from its reconstruction's; 0 for equal pictures.",
        QUALITY, "", "lower", ".4f",
    ),
    "l1": Meaning("mean absolute error", "Of pixel values from 0 to 1.", QUALITY, "", "lower", ".4f"),
    "mse": Meaning("mean squared error", "Of pixel values from 0 to 1.", QUALITY, "", "lower", ".5f"),
    "rfid": Meaning(
        "rFID", "Fréchet distance of pictures and reconstructions by Inception-v3; 0 for equal sets.",
        SETS, "", "lower", ".2f",
    ),
    "fid": Meaning(
        "FID", "Fréchet distance of pictures and what was drawn by Inception-v3; 0 for equal sets.",
        SETS, "", "lower", ".2f",
    ),
    "rkid": Meaning("rKID", _KERNEL, SETS, "", "lower", ".5f"),
    "kid": Meaning("KID", _KERNEL, SETS, "", "lower", ".5f"),
    "frechet_distance": Meaning("Fréchet distance", _FRECHET, SETS, "", "lower", ".4g"),
    "kernel_distance": Meaning("kernel distance", _KERNEL, SETS, "", "lower", ".4f"),
    "inception_score": Meaning("Inception score", _SCORE, SETS, "", "higher", ".2f"),
    "rinception_score": Meaning("Inception score of reconstructions", _SCORE, SETS, "", "higher", ".2f"),
    "class_score": Meaning("Inception score by another network's classes", _SCORE, SETS, "", "higher", ".2f"),
    "precision": Meaning(
        "precision", "Share of the made pictures that lie among the real ones.",
        SETS, "", "higher", ".1%",
    ),
    "recall": Meaning("recall", "Share of the real pictures that lie among the made ones.", SETS, "", "higher", ".1%"),
    "length": Meaning("code length", "Codes of an image, mean over the pictures.", COST, "codes", "lower", ".1f"),
    "length_std": Meaning(
        "spread of code length", "Standard deviation between the pictures: 0 where all have as many codes.",
        COST, "codes", None, ".1f",
    ),
    "expected_length": Meaning(
        "code length asked for", "The mean that training was to reach.",
        COST, "codes", None, ".1f",
    ),
    "length_of_training": Meaning(
        "code length on training pictures", "Codes of an image, mean over crops of the training pictures.",
        COST, "codes", "lower", ".1f",
    ),
    "length_of_samples": Meaning(
        "code length of drawn images", "Codes that the prior draws for an image, mean.",
        COST, "codes", None, ".1f",
    ),
    "length_of_data": Meaning(
        "code length of held-out images", "Codes that the tokenizer gives an image, mean.",
        COST, "codes", None, ".1f",
    ),
    "length_distance": Meaning(
        "distance of code lengths", "By how many codes the lengths of drawn and held-out images differ (Wasserstein).",
        COST, "codes", "lower", ".2f",
    ),
    "bits_per_pixel": Meaning(
        "rate", "Codes at the fixed rate log2(v), and log2(K) for each region; of a codec, its whole file.",
        COST, "bits/pixel", "lower", ".3f",
    ),
    "file_bits_per_pixel": Meaning(
        "rate of whole files", "Files that 'vltok compress' or the codec writes, headers and all.",
        COST, "bits/pixel", "lower", ".3f",
    ),
    "parameters": Meaning("parameters", "How many numbers the model has learned.", COST, "", "lower", ",.0f"),
    "codebook_usage": Meaning(
        "codebook usage", "Share of the codebook's entries that occur at all.",
        _BOOK, "", "higher", ".1%",
    ),
    "codebook_perplexity": Meaning(
        "codebook perplexity", "So many entries, used equally often, would be as diverse.",
        _BOOK, "entries", "higher", ".1f",
    ),
    "gain_share": Meaning(
        "share of the best gain", "What the choice of granularities gains: 0% random places, 100% the best choice.",
        _PLACES, "", "higher", ".1%",
    ),
    "gain_correlation": Meaning(
        "granularity and gain", f"{_RANKS} how much its error falls from coarsest to finest.",
        _PLACES, "", "higher", ".3f",
    ),
    "coarse_error_correlation": Meaning(
        "granularity and coarse error", f"{_RANKS} its error when all regions are coarse.",
        _PLACES, "", "higher", ".3f",
    ),
    "error_correlation": Meaning(
        "granularity and error at fixed length", f"{_RANKS} its error under a code of fixed length.",
        _PLACES, "", "higher", ".3f",
    ),
    "error_correlation_per_picture": Meaning(
        "granularity and error within a picture", "That correlation among the regions of one picture, mean.",
        _PLACES, "", "higher", ".3f",
    ),
    "contrast_correlation": Meaning(
        "granularity and contrast", f"{_RANKS} its local contrast.",
        _PLACES, "", None, ".3f",
    ),
    "flat_finest_share": Meaning(
        "flat regions with the finest codes", "Share of the regions with nothing to see that get the most codes.",
        _PLACES, "", "lower", ".1%",
    ),
    "margin_gain_correlation": Meaning(
        "the gate's margin and gain", "Rank correlation of how sure the gate is of fine codes with what they gain.",
        _PLACES, "", "higher", ".3f",
    ),
    "margin_error_correlation": Meaning(
        "the gate's margin and coarse error", "Rank correlation of how sure the gate is with a region's coarse error.",
        _PLACES, "", "higher", ".3f",
    ),
    "loss": Meaning("loss", "What training minimises, on unseen codes.", ODDS, "nats", "lower", ".4f"),
    "bits_per_image": Meaning(
        "bits an image", "What the prior needs to say an unseen image's codes and places.",
        ODDS, "bits", "lower", ".1f",
    ),
    "bits_per_image_of_other_texts": Meaning(
        "bits an image with texts of others", "The same, where each image has the text of another, by chance.",
        ODDS, "bits", None, ".1f",
    ),
    "bits_per_image_of_other_embeddings": Meaning(
        "bits an image with embeddings of others", "The same, where each image has that of another, by chance.",
        ODDS, "bits", None, ".1f",
    ),
    "bits_per_code": Meaning(
        "bits a code", "Bits an image, divided by the number of codes.",
        ODDS, "bits", "lower", ".3f",
    ),
    "probe_bits_per_image": Meaning(
        "bits an image of a probe", "What a small prior of a fixed training needs to say an unseen image's codes.",
        ODDS, "bits", "lower", ".1f",
    ),
    "probe_position_bits_per_image": Meaning(
        "bits of positions of a probe", "Of these, those that say the granularities of regions.",
        ODDS, "bits", "lower", ".1f",
    ),
    "probe_content_bits_per_image": Meaning(
        "bits of contents of a probe", "Of these, those that say what the codes are.", ODDS, "bits", "lower", ".1f"
    ),
    "probe_bits_per_code": Meaning(
        "bits a code of a probe", "Its bits an image, divided by the number of codes.", ODDS, "bits", "lower", ".3f"
    ),
    "content": Meaning("content", "What the prior pays for a code's content.", ODDS, "nats a token", "lower", ".4f"),
    "position": Meaning(
        "position", "What the prior pays for a token of positions.",
        ODDS, "nats a token", "lower", ".4f",
    ),
    "granularity": Meaning(
        "granularity", "What the prior pays for a region's granularity.",
        ODDS, "nats a token", "lower", ".4f",
    ),
    "structure": Meaning(
        "structure", "What the prior pays for a token of granularities, or of lengths.",
        ODDS, "nats a token", "lower", ".4f",
    ),
    "unigram_per_code": Meaning(
        "content of a unigram model", "What contents cost whom knows only how often each code occurs.",
        ODDS, "nats a code", None, ".4f",
    ),
    "content_below_unigram": Meaning(
        "content below a unigram model", "By how much less the prior pays for contents than that.",
        ODDS, "", "higher", ".1%",
    ),
    "seconds_per_image": Meaning(
        "time of coding", "Encoding and decoding an image, on this machine.",
        SPEED, "s an image", "lower", ".3g",
    ),
    "seconds_per_sample": Meaning(
        "time of drawing", "Drawing and decoding an image, on this machine.",
        SPEED, "s an image", "lower", ".3g",
    ),
    "samples_per_second": Meaning(
        "speed of drawing", "Images whose codes are drawn in a second, on this machine.",
        SPEED, "images/s", "higher", ".2f",
    ),
    "codes_per_second": Meaning(
        "speed of training", "Codes that training takes in a second, on this machine.",
        SPEED, "codes/s", "higher", ".0f",
    ),
    "steps": Meaning("steps", "Training steps.", SPEED, "", None, ".0f"),
    "training_seconds": Meaning("time of training", "On this machine.", SPEED, "s", "lower", ".0f"),
}

#: Figures of which there is one for each factor, or for each part of a loss.
_FAMILIES: Mapping[str, Meaning] = {
    r"ratio_(\d+)": Meaning(
        "regions with factor {0}", "Share of the regions whose codes cover {0} pixels a side.",
        _PLACES, "", None, ".1%",
    ),
    r"ratio_(\d+)_of_training": Meaning(
        "regions with factor {0} on training pictures", "The same share, of crops of the training pictures.",
        _PLACES, "", None, ".1%",
    ),
    r"step_gain_correlation_(\d+)": Meaning(
        "granularity and gain of factor {0}", f"{_RANKS} how much the step to factor {{0}} lowers its error.",
        _PLACES, "", "higher", ".3f",
    ),
    r"(\w+)_per_code": Meaning(
        "{0} for each code", "What the prior pays for {0} tokens, divided by the number of codes.",
        ODDS, "nats a code", "lower", ".4f",
    ),
}
