"""`vltok.sample` as a notebook calls it."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.exports import PRIOR, write_prior
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.io.bundles import fingerprint, load_prior, load_tokenizer
from vltok.verbs.labels import choose_labels
from vltok.verbs.sample import sample


def test_codes_and_pictures_come_back(bundles: Path) -> None:
    told: list[tuple[int, int]] = []
    found = sample(bundles / "prior", 5, batch_size=2, device="cpu", progress=lambda *numbers: told.append(numbers))
    assert len(found.codes) == found.drawn == 5 and found.manifest is None
    assert found.pictures.shape == (5, 3, 16, 16) and found.pictures.dtype == torch.uint8
    assert told[0] == (0, 5) and told[-1] == (5, 5)
    # objects draw what their bundles draw
    prior, tokenizer = load_prior(bundles / "prior"), load_tokenizer(bundles / "tokenizer")
    again = sample(prior.train(), 5, tokenizer=tokenizer)
    assert again.codes.ids.tolist() == found.codes.ids.tolist() and prior.training


def test_a_folder_is_written_where_one_is_asked_for(bundles: Path, tmp_path: Path) -> None:
    found = sample(bundles / "prior", 3, tmp_path / "out", device="cpu", sampling=SamplingConfig(codes=10))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"pictures", "coding_maps", "codes", "grid.png"}
    assert found.codes is None and found.manifest.statistics["length"]["histogram"] == {"10": 3}
    more = sample(bundles / "prior", 5, tmp_path / "out", device="cpu", rate="codes=10")
    assert more.manifest.statistics["samples"] == 5


def test_a_prior_alone_does_not_say_who_decodes(bundles: Path) -> None:
    with pytest.raises(UserError, match="give --tokenizer"):
        sample(load_prior(bundles / "prior"), 1)


def test_labels_are_taken_in_turn() -> None:
    assert choose_labels(None, None, 3) is None and choose_labels("none", 4, 3) is None
    assert torch.equal(choose_labels(None, 2, 3), torch.tensor([0, 1, 0]))
    assert torch.equal(choose_labels([7, 3], 8, 3), torch.tensor([7, 3, 7]))
    assert torch.equal(choose_labels("7, 3", 8, 5), torch.tensor([7, 3, 7, 3, 7]))
    with pytest.raises(UserError, match="this prior knows no classes"):
        choose_labels("1", None, 3)


def test_names_with_commas_digits_accents_and_of_two_classes() -> None:
    names = ["salt, pepper", "salt", "10", "crane", "cafe\u0301", "crane", "2"]
    assert choose_labels("salt, salt, pepper,caf\u00e9,10", 7, 4, names).tolist() == [1, 0, 4, 2]
    assert choose_labels(["salt, pepper", 2, "2", "0"], 7, 4, names).tolist() == [0, 2, 6, 0]
    with pytest.raises(UserError, match=r"--labels: 'crane' is the name of the classes 3 and 5: give one of these"):
        choose_labels("salt,crane", 7, 1, names)


@given(st.lists(st.text(st.sampled_from("a, b1é"), min_size=1, max_size=4).filter(str.strip), max_size=5, unique=True))
def test_every_name_alone_is_its_class(names: list[str]) -> None:
    names = list(dict.fromkeys(name.strip() for name in names))
    for number, name in enumerate(names):
        assert choose_labels(name, len(names), 1, names).tolist() == [number]
        assert choose_labels([name], len(names), 1, names).tolist() == [number]


def test_labels_are_named() -> None:
    names = ["cat", "fruit"]
    assert torch.equal(choose_labels("fruit, 0", 2, 3, names), torch.tensor([1, 0, 1]))
    assert torch.equal(choose_labels(["cat", 1], 2, 2, names), torch.tensor([0, 1]))
    with pytest.raises(UserError, match=r"names of classes or numbers from 0 to 1, .* not 'fruits'; did you mean 'fr"):
        choose_labels("fruits", 2, 1, names)


def test_a_folder_of_samples_names_their_classes(bundles: Path, tmp_path: Path) -> None:
    config = {**PRIOR, "init_args": {**PRIOR["init_args"], "classes": 2}}
    (tmp_path / "tokenizer").symlink_to(bundles / "tokenizer")
    names = ["salt, pepper", b"caf\xe9".decode("utf-8", "surrogateescape")]
    write_prior(tmp_path / "prior", config, fingerprint(bundles / "tokenizer"), names)
    found = sample(tmp_path / "prior", 2, tmp_path / "out", labels=[names[1], "salt, pepper"], coding_maps=False)
    assert found.manifest.classes == tuple(names) and found.manifest.labelled
    samples = found.manifest.read_samples(tmp_path / "out" / "codes", found.manifest.shards[0])
    assert [each.label for each in samples] == [1, 0]


def test_a_prior_without_texts_takes_no_prompts(bundles: Path) -> None:
    with pytest.raises(UserError, match="--prompts: this prior reads no texts"):
        sample(bundles / "prior", 1, prompts=["a cat"], device="cpu")
