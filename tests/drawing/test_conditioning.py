import numpy as np
import pytest
import torch

from vltok.codes import Codes
from vltok.drawing.conditioning import Conditioning
from vltok.errors import UserError

CPU = torch.device("cpu")


def codes_of(labels: list[int] | None) -> Codes:
    count = 3 if labels is None else len(labels)
    return Codes(
        torch.arange(count), torch.ones(count, dtype=torch.long), None, None if labels is None else torch.tensor(labels)
    )


@pytest.mark.parametrize(("classes", "label_dropout", "starts"), [(None, 0.0, 1), (4, 0.0, 4), (4, 0.1, 5)])
def test_there_is_a_start_for_each_class_and_one_for_none(classes, label_dropout, starts):
    assert Conditioning(classes, label_dropout).starts == starts


def test_labels_are_those_of_the_codes():
    assert Conditioning(None, 0.0).of_codes(codes_of([3, 1]), training=True).tolist() == [0, 0]
    conditioning = Conditioning(4, 0.5)
    assert conditioning.of_codes(codes_of([3, 1]), training=False).tolist() == [3, 1]
    seen = conditioning.of_codes(codes_of([3] * 1000), training=True)
    assert set(seen.tolist()) == {3, 4}
    assert 400 < (seen == 4).sum() < 600


def test_what_is_drawn_has_the_class_that_is_asked_for():
    assert Conditioning(None, 0.0).to_draw(2, 1.0, CPU).tolist() == [0, 0]
    assert Conditioning(4, 0.1).to_draw(2, 1.0, CPU).tolist() == [4, 4]
    assert Conditioning(4, 0.1).to_draw(torch.tensor([3, 0]), 2.0, CPU).tolist() == [3, 0]


def test_errors_name_the_remedy():
    for values, message in [((None, 0.1), "needs classes"), ((4, 1.5), r"\[0, 1\]"), ((0, 0.0), "unconditional")]:
        with pytest.raises(UserError, match=message):
            Conditioning(*values)
    for labels, message in [(None, "no labels"), ([0, -1], "label -1"), ([4, 0], "label 4"), ([0, 2**40], f"{2**40}")]:
        with pytest.raises(UserError, match=message):
            Conditioning(4, 0.5).of_codes(codes_of(labels), training=True)
    for conditioning, asked, guidance, message in [
        (Conditioning(4, 0.0), torch.tensor([0]), 2.0, "label_dropout"),
        (Conditioning(4, 0.0), 2, 1.0, "labels from 0 to 3"),
        (Conditioning(4, 0.0), torch.tensor([4]), 1.0, "from 0 to 3"),
        (Conditioning(None, 0.0), torch.tensor([0]), 1.0, "no classes"),
        (Conditioning(None, 0.0), 0, 1.0, "at least 1"),
    ]:
        with pytest.raises(UserError, match=message):
            conditioning.to_draw(asked, guidance, CPU)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (torch.tensor([1, -1, 4]), "labels must be one or more whole numbers from 0 to 3, not -1"),
        (torch.tensor([2**40]), f"from 0 to 3, not {2**40}"),
        (torch.tensor([0.5]), r"from 0 to 3, not torch.float32"),
        (torch.tensor([True]), r"from 0 to 3, not torch.bool"),
        (torch.tensor([[1, 2]]), r"from 0 to 3, in a row, not of shape \(1, 2\)"),
        (torch.tensor([], dtype=torch.long), r"in a row, not of shape \(0,\)"),
        (True, "the number of images to draw must be a whole number, not True"),
        (2.5, "the number of images to draw must be a whole number, not 2.5"),
        ([1, 2], r"the number of images to draw must be a whole number, not \[1, 2\]"),
    ],
    ids=str,
)
def test_what_is_neither_labels_nor_a_number_is_refused(asked, message):
    with pytest.raises(UserError, match=f"{message}$"):
        Conditioning(4, 0.1).to_draw(asked, 1.0, CPU)


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_other_libraries_are_numbers():
    assert Conditioning(None, 0.0).to_draw(np.int64(2), 1.0, CPU).tolist() == [0, 0]
    assert Conditioning(4, 0.0).to_draw(torch.tensor([3], dtype=torch.uint8), 1.0, CPU).tolist() == [3]
