"""Text that others chose, in Markdown and model cards."""

import pytest
import yaml

from vltok.io.cards import model_card
from vltok.io.markdown import escaped, fenced


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("my_run-2 [dB]", "my_run-2 [dB]"),
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("<script>", "\\<script\\>"),
        ("[a](javascript:b)", "[a\\](javascript:b)"),
        ("`code`", "\\`code\\`"),
        ("one\n\n# two", "one # two"),
        ("\udcff", "\\\\udcff"),
    ],
)
def test_nothing_in_a_text_is_markdown(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_no_text_ends_its_fence() -> None:
    assert fenced("a", "yaml") == "```yaml\na\n```"
    text = fenced("a\n````\nb")
    assert text.startswith("`````\n") and text.endswith("\n`````")


def test_a_card_holds_hostile_names() -> None:
    config = {"class_path": "a\n---\n# b", "init_args": {"note": "x\n\n```\n<img src=y>"}}
    card = model_card("n\n<script>", "tokenizer", config, "", {"a|b": "<i>\n", "psnr": 21.5})
    front, _, rest = card.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front)["tags"][-1] == config["class_path"]
    assert (
        "# n \\<script\\>\n" in rest and "| a\\|b | \\<i\\> |  |" in rest and "| PSNR ↑ | 21.50 dB | How near" in rest
    )
    inside = rest.partition("````yaml\n")[2].partition("\n````")[0]
    assert yaml.safe_load(inside) == config
