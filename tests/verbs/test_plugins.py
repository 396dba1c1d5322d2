import subprocess
import sys

import pytest

from vltok.errors import UserError
from vltok.registry import components
from vltok.verbs.plugins import plugins


def test_those_of_a_kind_or_a_name() -> None:
    assert [entry.name for entry in plugins("gate")] == [component.name for component in components("gate")]
    (entry,) = plugins("data", "photos")
    assert entry.error is None and "size" in {argument.name for argument in entry.arguments}


@pytest.mark.parametrize(("given", "message"), [(("gaet",), "'gate'"), (("gate", "entropi"), "'entropy'")])
def test_a_misspelt_one_is_told(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=f"did you mean {message}"):
        plugins(*given)


def test_the_functions_are_named_without_torch() -> None:
    program = "import sys, vltok; dir(vltok); vltok.shipped_recipes(); vltok.plugins; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"
