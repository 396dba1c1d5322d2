"""Blocks that the backward pass computes again."""

import copy

import timm
import torch
from torch import nn
from torch.testing import assert_close

from vltok.nn.recomputing import recompute
from vltok.nn.residual import ResidualStage


def test_gradients_are_the_same_and_dropout_is_drawn_once():
    stage = ResidualStage(8, 12, blocks=2, attention=True, dropout=0.3).train()
    again = copy.deepcopy(stage)
    assert recompute(again)
    again = copy.deepcopy(again)  # a copy computes with its own weights
    features, found = torch.randn(2, 8, 6, 6), []
    for each in (stage, again):
        torch.manual_seed(0)
        each(features).square().sum().backward()
        found.append([parameter.grad for parameter in each.parameters()])
    assert_close(found[1], found[0])
    assert stage.state_dict().keys() == again.state_dict().keys()


def test_backbones_of_timm_recompute_their_own_blocks():
    backbone = timm.create_model("resnet10t")
    assert not backbone.grad_checkpointing
    assert recompute(nn.Sequential(backbone))
    assert backbone.grad_checkpointing


def test_a_model_without_blocks_says_so():
    assert not recompute(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
