"""`vltok import`; tests/verbs/test_import_model.py says what it does."""

from typing import Any

import pytest

from vltok.cli.main import main
from vltok.errors import UserError
from vltok.verbs import import_model


def test_every_option_reaches_the_function(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    given: dict[str, Any] = {}

    def stop(**arguments: Any) -> None:
        given.update(arguments)
        raise UserError("that is all")

    monkeypatch.setattr(import_model, "import_model", stop)
    assert main(["import", "a.ckpt", "--out", "b", "--config", "c.yaml", "--from", "llamagen", "--averages=false"]) == 1
    assert capsys.readouterr().err == "vltok: error: that is all\n"
    wanted = {"source": "a.ckpt", "out": "b", "config": "c.yaml", "format": "llamagen", "averages": False}
    assert given == {**wanted, "tokenizer": None, "revision": None}
