import pytest

from vltok.errors import UserError
from vltok.io.spelling import check_spelling


@pytest.mark.parametrize(
    "tree",
    [
        {"model.tokenizer.gate.class_path": "entropy"},
        {"data": {"class_path": "my_package.Pictures"}},
        # a word may stand where a parameter of a plug-in takes one, and Lightning's classes go by their names
        {"model": {"init_args": {"encoder": "vqgn"}}},
        {"trainer": {"callbacks": [{"class_path": "EarlyStopping"}]}},
        {"model": {"init_args": {"encoder": {"class_path": "ResNet"}}}},
        # a discriminator, where a parameter that is called as an encoder takes one: no misspelt 'patch'
        {"model": {"init_args": {"encoder": {"class_path": "patchgan"}}}},
    ],
)
def test_what_may_be_right_is_left_to_the_types(tree: dict) -> None:
    check_spelling(tree)


@pytest.mark.parametrize(
    "tree",
    [
        {"model.tokenizer.gate.class_path": "entrpy"},
        {"model": {"init_args": {"gates": [{"gate": {"class_path": "entrpy"}}]}}},
    ],
)
def test_a_name_that_is_nearly_one_is_told(tree: dict) -> None:
    with pytest.raises(UserError, match=r"no gate is called 'entrpy'; .* did you mean 'entropy'"):
        check_spelling(tree)
