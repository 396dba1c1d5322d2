"""Rubbish in YAML: recipes, tables of ablations, and what importers read."""

import random
from pathlib import Path

import yaml

from .canaries import CANARY
from .cases import Case
from .values import LONG, mutated, mutated_bytes


def recipe(draw: random.Random, folder: Path) -> Case:
    """A recipe of a tokenizer or a prior with one thing wrong in it."""
    name = draw.choice(["tokenizer", "prior"])
    what = _spoil(draw, folder / f"{name}.yaml")
    return Case(f"{name}.yaml: {what}", ("fit", f"--config={name}.yaml", "--out=out"))


def table(draw: random.Random, folder: Path) -> Case:
    """A table of ablations, or a row of it, with one thing wrong."""
    name = draw.choice(["table", "table", "row"])
    what = _spoil(draw, folder / "table" / f"{name}.yaml")
    # no run is trained: what can be wrong with the table is found before
    wrong = ["--trainer.max_steps=two", "--trainer.accelerator=none", "--data.size=6.5"]
    return Case(f"{name}.yaml: {what}", ("ablate", "table", "--out=out", "--seeds", "0", draw.choice(wrong)))


def _spoil(draw: random.Random, path: Path) -> str:
    """Put something wrong into a YAML file; what."""
    text = path.read_text()
    how = draw.random()
    if how < 0.7:
        what, tree = mutated(draw, yaml.safe_load(text))
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=draw.random() < 0.5)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        return what
    if how < 0.8:
        what, content = mutated_bytes(draw, text.encode())
        path.write_bytes(content)
        return what
    what, content = draw.choice(_TEXTS)(draw, text)
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return what


_BILLION = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{','.join([f'*{chr(97 + level)}'] * 9)}]\n" for level in range(9)
)
_TEXTS = (
    lambda draw, text: ("indented by tabs", text.replace("  ", "\t")),
    lambda draw, text: ("a tab in a value", text.replace(": ", ":\t", 1).replace("\nmodel", "\n\tmodel")),
    lambda draw, text: ("a bracket too few", text.replace("}", "", 1)),
    lambda draw, text: ("a bracket too many", text + "}\n"),
    lambda draw, text: ("a tag that runs code", text + f'x: !!python/object/apply:os.system ["touch {CANARY}"]\n'),
    lambda draw, text: ("a tag of nobody", text.replace(": ", ": !strange ", 1)),
    lambda draw, text: ("an anchor that holds itself", text + "x: &x [*x]\n"),
    lambda draw, text: ("a recipe that holds itself", f"&all\n{text}x: *all\n"),
    lambda draw, text: ("anchors that multiply", text + _BILLION),
    lambda draw, text: ("an unknown anchor", text + "x: *nothing\n"),
    lambda draw, text: ("a merge key", text + "<<: {data: 3}\n"),
    lambda draw, text: ("a key twice", text + text),
    lambda draw, text: ("two documents", text + "---\n" + text),
    lambda draw, text: ("a list", "- a\n- b\n"),
    lambda draw, text: ("a word", "word\n"),
    lambda draw, text: ("a number", "12\n"),
    lambda draw, text: ("comments alone", "# nothing\n"),
    lambda draw, text: ("brackets a thousand deep", f"x: {'[' * 5000}{']' * 5000}\n"),
    lambda draw, text: ("an open bracket a thousand deep", "x: " + "{a: " * 3000),
    lambda draw, text: ("not UTF-8", text.encode("utf-16")),
    lambda draw, text: ("Latin letters", text.encode() + "# é\n".encode("latin-1")),
    lambda draw, text: ("a byte-order mark", b"\xef\xbb\xbf" + text.encode()),
    lambda draw, text: ("a NUL", text + "\0"),
    lambda draw, text: ("an escape", text + "\x1b[31m: 1\n"),
    lambda draw, text: ("Windows' line ends", text.replace("\n", "\r\n")),
    lambda draw, text: ("a very long key", text + f"{LONG}: 1\n"),
    lambda draw, text: ("modle:", text.replace("model:", "modle:").replace("title:", "titel:")),
    lambda draw, text: ("dotted keys", text + "model.tokenizer.quantizer.size: -3\ndata.size.size: 1\n"),
    lambda draw, text: ("a key that is null", text + "null: 3\n? [a, b]\n: 4\n"),
    lambda draw, text: ("a set and a pair", text + "x: !!set {a, b}\ny: !!omap [a: 1]\n"),
    lambda draw, text: ("a date for a class", text.replace("class_path: ", "class_path: 2020-01-01 #", 1)),
    lambda draw, text: ("an environment variable", text.replace(": 3", ": ${HOME}").replace(": 5", ": $HOME")),
)
