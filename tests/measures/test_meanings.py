"""What figures are called and mean."""

import re

import pytest

from vltok.measures.meanings import _FAMILIES, GROUPS, MEANINGS, explained, meaning


@pytest.mark.parametrize(
    "key", [*MEANINGS, "ratio_8", "ratio_16_of_training", "step_gain_correlation_4", "x_per_code", "perturbed_25_psnr"]
)
def test_every_entry_is_one_line_for_readers(key: str) -> None:
    means = meaning(key)
    assert explained(key) and means.group in GROUPS
    assert means.text.endswith(".") and len(means.text) < 130 and "{" not in means.text + means.name
    assert means.title.endswith(means.arrow) and re.search(r"\d", means.shown(0.5))
    assert key == means.name or "_" not in means.name  # names, no keys


def test_families_overlap_with_no_entry_but_what_they_would_say_worse() -> None:
    taken = {key for key in MEANINGS if any(re.fullmatch(pattern, key) for pattern in _FAMILIES)}
    assert taken == {"unigram_per_code", "bits_per_code", "probe_bits_per_code"}


def test_a_title_has_unit_and_direction() -> None:
    assert meaning("psnr").title == "PSNR [dB] ↑" and meaning("length").title == "code length [codes] ↓"
    assert meaning("psnr").shown(24.126) == "24.13 dB" and meaning("codebook_usage").shown(0.5) == "50.0%"
    assert meaning("ratio_8_of_training").label == "regions with factor 8 on training pictures"


def test_a_figure_of_a_network_names_it() -> None:
    means = meaning("frechet_distance/timm:resnet18.a1_in1k")
    assert means.name == "Fréchet distance, timm:resnet18.a1_in1k" and means.better == "lower"
    assert meaning("perturbed_5_kernel_distance/random:x").name == "kernel distance with 5% wrong codes, random:x"


@pytest.mark.parametrize(("key", "name"), [("my_part", "my part"), ("<b>/x_y", "<b>/x_y"), ("a b", "a b")])
def test_what_is_not_known_is_called_by_its_key(key: str, name: str) -> None:
    assert meaning(key).title == name and not explained(key)
