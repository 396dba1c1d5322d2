import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import vltok
from tests.priors.test_orderings import random_codes
from vltok.codes import Codes
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.priors.dq_transformer import DQTransformer

from ..tiny_priors import tiny_prior


def small(**changes) -> DQTransformer:
    return tiny_prior(DQTransformer, **{"layers": (1, 2), **changes})


def labelled(prior: DQTransformer, images: int = 3, seed: int = 0) -> Codes:
    codes = random_codes(prior.spec, images, seed)
    return Codes(codes.ids, codes.lengths, codes.grains, torch.arange(images) % 4)


@pytest.mark.parametrize(("content", "millions"), [({}, 307.8), ({"layers": 42}, 610.1)])
def test_sizes_are_the_papers(content, millions):
    spec = {"codebook_size": 1024, "factors": [8, 16], "regions": [16, 16]}
    with torch.device("meta"):
        prior = vltok.build(
            {"class_path": "dq-transformer", "init_args": {"spec": spec, "content_transformer": content}}
        )
    assert sum(parameter.numel() for parameter in prior.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


SWITCHES = [
    {},
    {"factors": [1]},
    {"factors": [4, 2, 1]},
    {"shared_content": False},
    {"shared_position": True},
    {"granularity_embedding": False},
    {"absolute_position": False},
    {"position_loss": "granularity-mean"},
    {"order": "region-first"},
    {"checkpointing": True},
    {"classes": 4},
    {"classes": 4, "label_dropout": 0.5, "class_in_positions": True},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_parameter_gets_a_gradient(switches):
    prior = small(**switches).train()
    loss = prior.loss(labelled(prior))
    loss.total.backward()
    without = [name for name, parameter in prior.named_parameters() if not parameter.grad.any()]
    assert not without


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_a_packed_batch_has_the_mean_loss_of_its_images(switches):
    prior = small(**switches).double().eval()
    codes = labelled(prior)
    packed = prior.loss(codes)
    singly = [prior.loss(image) for image in codes]
    for part in ("content", "position"):
        weights = torch.stack([loss.counts[part] for loss in singly])
        assert packed.counts[part] == weights.sum()
        expected = torch.stack([loss.parts[part] for loss in singly]).mul(weights).sum() / weights.sum()
        assert_close(packed.parts[part], expected)
    if prior.position_loss == "sequence":
        assert_close(packed.total, packed.parts["content"] + packed.parts["position"])


def test_changing_one_image_changes_no_others_loss_or_gradient():
    prior = small().double()
    codes, other = labelled(prior, 3, seed=1), labelled(prior, 3, seed=2)
    changed = Codes.concatenate([codes[0], other[1], codes[2]])
    assert changed.lengths[1] != codes.lengths[1]

    def of_the_rest(batch: Codes) -> tuple[torch.Tensor, ...]:
        predictions = prior(prior.ordering(batch))
        targets = predictions.targets
        rest = targets.packing.images != 1
        loss = F.cross_entropy(predictions.contents[rest], targets.contents[rest]) + F.cross_entropy(
            predictions.positions[rest], targets.positions[rest]
        )
        return loss, *torch.autograd.grad(loss, list(prior.parameters()))

    assert_close(of_the_rest(codes), of_the_rest(changed), rtol=1e-9, atol=1e-12)


def test_granularity_mean_weighs_granularities_alike():
    prior = small(position_loss="granularity-mean").eval()
    codes = labelled(prior)
    predictions = prior(prior.ordering(codes))
    targets = predictions.targets
    means = [
        F.cross_entropy(predictions.positions[chosen], targets.positions[chosen])
        for chosen in (targets.granularities == 0, targets.granularities == 1)
    ]
    loss = prior.loss(codes)
    assert_close(loss.total - loss.parts["content"], (means[0] + means[1]) / 2)


def test_predictions_do_not_depend_on_what_follows():
    prior = small().eval()
    codes = labelled(prior, 1)
    sequences = prior.ordering(codes)
    before = prior(sequences)
    middle = sequences.packing.total // 2
    sequences.contents[middle] = (sequences.contents[middle] + 1) % 13
    after = prior(sequences)
    # token t is read at step t, and predicts positions and contents from step t on
    assert torch.equal(before.contents[:middle], after.contents[:middle])
    assert torch.equal(before.positions[:middle], after.positions[:middle])
    assert not torch.equal(before.contents[middle:], after.contents[middle:])


def test_a_content_knows_its_own_position():
    prior = small().eval()
    sequences = prior.ordering(labelled(prior, 1))
    before = prior(sequences)
    sequences.positions[2] = 0 if sequences.positions[2] else 1
    after = prior(sequences)
    assert_close(before.positions[:2], after.positions[:2])
    assert not torch.allclose(before.contents[1], after.contents[1])


def test_classes_matter_and_are_hidden_in_training():
    prior = small(classes=4, label_dropout=1.0)
    codes = labelled(prior)
    other = Codes(codes.ids, codes.lengths, codes.grains, (codes.labels + 1) % 4)
    prior.train()
    assert prior.loss(codes).total == prior.loss(other).total
    prior.eval()
    assert prior.loss(codes).total != prior.loss(other).total


@pytest.mark.usefixtures("unchecked")  # the checks of shapes would take most of the time
def test_it_learns_what_can_be_learned():
    torch.manual_seed(0)
    prior = small(width=32).train()
    codes = labelled(prior, 4)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=3e-3)
    for _ in range(150):
        loss = prior.loss(codes)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert loss.parts["content"] < 0.1
    assert loss.parts["position"] < 0.1
    # what it has learned by heart is what it draws
    drawn = prior.sample(8, SamplingConfig(top_p=0.5, position_top_p=0.5), torch.Generator().manual_seed(0))
    known = [image.ids.tolist() for image in codes]
    assert all(image.ids.tolist() in known for image in drawn)


def test_errors_name_the_remedy():
    with pytest.raises(UserError, match="heads"):
        small(heads=3)
    with pytest.raises(UserError, match="needs classes"):
        small(label_dropout=0.1)
    with pytest.raises(UserError, match="unconditional"):
        small(classes=0)
    prior = small(classes=4)
    codes = random_codes(prior.spec, 1, 0)
    with pytest.raises(UserError, match="no labels"):
        prior.loss(codes)
