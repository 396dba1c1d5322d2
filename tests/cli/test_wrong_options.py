"""Wrong options of the verbs that read no recipe, and seeds out of range: found before anything is loaded or built."""

import pytest

from vltok.cli.main import main

SEEDS = "must lie between 0 and 4294967295, not "


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("reconstruct a.png", "--tokenizer and --out must be given"),
        ("detokenize", "CODES and --out and --tokenizer must be given"),
        ("sample --prior a --out b --guidance two", "--guidance must be float, not 'two'"),
        ("sample --prior a --out b --batch-size 1.5", "--batch-size must be int, not '1.5': write a whole number"),
        ("compare a --out b --strange", "no option is called '--strange'; 'vltok compare --help' lists them"),
        ("plugins --jsn", "no option is called '--jsn'; did you mean '--json'?"),
        ("pack a b --seed two", "--seed must be int, not 'two'"),
        ("pack a", "SHARDS must be given"),
        ("new gate", "NAME must be given"),
    ],
)
def test_what_is_wrong_is_named_as_it_is_given(arguments: str, said: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments.split()) == 2
    assert capsys.readouterr().err == f"vltok: error: {said}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "--prior", "a", "--out", "b", "--seed", "-1"], f"--seed {SEEDS}-1"),
        (["pack", "a", "b", "--seed", str(2**64)], f"--seed {SEEDS}{2**64}"),
        (["evaluate", "--codec=jpeg", "--quality=5", "--out=a", "--seed=-1"], f"--seed {SEEDS}-1"),
        (["ablate", "a", "--out", "b", "--seeds", "1", "4294967296"], f"--seeds {SEEDS}4294967296"),
        (["tokenize", "--tokenizer=a", "--out=b", "--data.seed=-1"], f"data.seed {SEEDS}-1"),
        (["tokenize", "--tokenizer=a", "--out=b", "--data.workers=2000"], "data.workers must be at most 1024"),
        (["tokenize", "--tokenizer=a", "", "--out=b"], "'' stands alone: every value follows an option"),
    ],
)
def test_seeds_have_one_range(arguments: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"vltok: error: {said}") and line.count("\n") == 1
