import pytest
import torch

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.priors.conditioning import Conditioning

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
    with pytest.raises(UserError, match="no labels"):
        Conditioning(4, 0.0).of_codes(codes_of(None), training=True)
    for conditioning, asked, guidance, message in [
        (Conditioning(4, 0.0), torch.tensor([0]), 2.0, "label_dropout"),
        (Conditioning(4, 0.0), 2, 1.0, "labels from 0 to 3"),
        (Conditioning(4, 0.0), torch.tensor([4]), 1.0, "from 0 to 3"),
        (Conditioning(None, 0.0), torch.tensor([0]), 1.0, "no classes"),
        (Conditioning(None, 0.0), 0, 1.0, "at least 1"),
    ]:
        with pytest.raises(UserError, match=message):
            conditioning.to_draw(asked, guidance, CPU)
