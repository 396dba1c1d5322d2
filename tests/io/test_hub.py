"""Bundles on the Hub: what is asked for, and what is said where it is not given."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from vltok.errors import UserError
from vltok.interfaces import Tokenizer
from vltok.io.bundles import load_prior, load_tokenizer
from vltok.io.hub import Hub, find, is_hub_name
from vltok.io.places import find_tokenizer

OLD = Path(__file__).parent / "bundles_0_1_0"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSED = SimpleNamespace(headers={}, request=None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the Hub's client was asked for; it gives the tokenizer of version 0.1.0."""
    calls = []

    def snapshot_download(name: str, **options: Any) -> str:
        calls.append((name, options))
        return str(OLD / "tokenizer")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return calls


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The cache of the Hub's client after `somebody/tokenizer` was downloaded."""
    repository = tmp_path / "cache" / "models--somebody--tokenizer"
    shutil.copytree(OLD / "tokenizer", repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path / "cache"


def test_a_name_is_fetched_with_the_files_of_a_bundle_and_no_more(asked: list) -> None:
    assert isinstance(load_tokenizer("somebody/tokenizer"), Tokenizer)
    ((name, options),) = asked
    assert name == "somebody/tokenizer" and options["revision"] is None
    files = {"config.yaml", "model.safetensors", "README.md"}
    measured = {"rate.json", "code_tables.safetensors", "rate_curve.json"}
    assert set(options["allow_patterns"]) == files | measured


@pytest.mark.parametrize("place", ["somebody/tokenizer@v1.0", "somebody/tokenizer"])
def test_what_the_hub_needs_is_handed_on(place: str, asked: list, tmp_path: Path) -> None:
    load_tokenizer(place, revision="v1.0", token="secret", cache_dir=tmp_path, local_files_only=True)
    name, options = asked[0]
    given = {key: options[key] for key in ("revision", "token", "cache_dir", "local_files_only")}
    assert name == "somebody/tokenizer"
    assert given == {"revision": "v1.0", "token": "secret", "cache_dir": tmp_path, "local_files_only": True}
    with pytest.raises(UserError, match="holds a tokenizer, not a prior"):
        load_prior("somebody/tokenizer", revision="v1.0")


def test_two_revisions_contradict_each_other(asked: list) -> None:
    with pytest.raises(UserError, match=r"names another revision than revision='v2'"):
        load_tokenizer("somebody/tokenizer@v1", revision="v2")
    assert not asked


def test_what_was_downloaded_is_found_without_a_network(cache: Path) -> None:
    loaded = load_tokenizer("somebody/tokenizer", cache_dir=cache, local_files_only=True)
    assert loaded.spec.codebook_size == 8
    assert find(f"somebody/tokenizer@{COMMIT}", Hub(cache_dir=cache, local_files_only=True), ["config.yaml"]).is_dir()
    with pytest.raises(
        UserError, match=r"'somebody/other', it was not downloaded before, and .*HF_HUB_OFFLINE"
    ) as said:
        load_tokenizer("somebody/other", cache_dir=cache, local_files_only=True)
    assert "\n" not in str(said.value)


def test_offline_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_tokenizer("somebody/tokenizer", cache_dir=cache).spec.codebook_size == 8
    with pytest.raises(UserError, match=r"^[^\n]*was not downloaded before[^\n]*$"):
        load_tokenizer("somebody/other", cache_dir=cache)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GatedRepoError("x", response=REFUSED), "is gated: accept its terms"),
        (
            RepositoryNotFoundError("x", response=REFUSED),
            "no such repository on the Hugging Face Hub; where it is priv",
        ),
        (LocalEntryNotFoundError("x"), "does not answer: give a folder that is here, or try again online"),
        (ConnectionError("no route\nto host"), "the Hugging Face Hub does not give it: no route$"),
    ],
)
def test_what_the_hub_refuses_is_one_line(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(name: str, **options: Any) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=said) as raised:
        load_tokenizer("somebody/tokenizer")
    assert "\n" not in str(raised.value)


def test_a_misspelt_folder_is_not_asked_for(asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"did you mean 'runs/quickstart'\?; .* Hub would be 'runs/quikstart@main'"):
        load_tokenizer("runs/quikstart")
    for place in ("quikstart", "./runs/quikstart", "runs/a/bundle", "/runs/quikstart", Path("somebody/tokenizer")):
        with pytest.raises(UserError, match="no such folder"):
            load_tokenizer(place)
    assert not asked
    load_tokenizer("runs/tokenizer@main")
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["a", "a/b/c", "../a", "a/b@", "a/b@-x", "a b/c", "-/", "/a", "https://a/b", "a\n/b"])
def test_what_is_no_name_on_the_hub(name: str) -> None:
    assert not is_hub_name(name)


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    """A prior whose bundle says that its tokenizer is on the Hub."""
    shutil.copytree(OLD / "prior", tmp_path / "prior")
    content = yaml.safe_load((tmp_path / "prior" / "config.yaml").read_text())
    content["tokenizer"]["places"] = ["somebody/tokenizer"]
    (tmp_path / "prior" / "config.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "prior"


def test_what_a_bundle_names_is_downloaded_only_with_trust(prior: Path, asked: list) -> None:
    found = find_tokenizer(prior)
    assert [options["local_files_only"] for _, options in asked] == [True], "nothing may be downloaded"
    assert found == "somebody/tokenizer@tokenizer", "with the commit that was looked at"
    find_tokenizer(prior, trust=True)
    assert not asked[-1][1]["local_files_only"]


def test_the_users_word_is_asked_for(prior: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert find_tokenizer(prior) == f"somebody/tokenizer@{COMMIT}"
    shutil.rmtree(cache)
    with pytest.raises(UserError, match=r"is not at 'somebody/tokenizer': .* with --tokenizer, or allow .* --trust"):
        find_tokenizer(prior)


def test_a_run_that_is_not_there_is_not_asked_for(asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"there is no folder 'runs' here; .* would be 'runs/nope@main'"):
        load_tokenizer("runs/nope")
    assert not asked
