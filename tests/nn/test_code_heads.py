"""Codes of several ids: each id is given those before it, and the probabilities of all codes sum to 1."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vltok.nn.code_heads import CodeHead, embed_codes
from vltok.nn.heads import Head


def test_a_code_of_one_id_has_the_plain_head() -> None:
    torch.manual_seed(0)
    plain = Head(8, 5)
    torch.manual_seed(0)
    head, hidden, ids = CodeHead(8, 5), torch.randn(3, 8), torch.tensor([4, 0, 1])
    assert list(head.state_dict()) == list(plain.state_dict())
    assert head.code_logits(hidden, ids).equal(plain(hidden)) and head.code_nats(hidden, ids).equal(
        plain.nats(hidden, ids)
    )
    assert head.walk(hidden, lambda logits: logits.argmax(1)).equal(plain(hidden).argmax(1))


def test_the_probabilities_of_all_codes_sum_to_one() -> None:
    head = CodeHead(8, 4, codebooks=3)
    codes = torch.tensor(list(itertools.product(range(4), repeat=3)))
    hidden = torch.randn(1, 8).expand(len(codes), -1)
    nats = head.code_nats(hidden, codes)
    assert_close((-nats).exp().sum(), torch.tensor(1.0))
    logits = head.code_logits(hidden, codes)
    assert logits.shape == (64, 3, 4)
    assert_close(F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(-1, 3).sum(1), nats)


def test_an_id_depends_on_those_before_it_and_on_no_later_one() -> None:
    head, hidden = CodeHead(8, 4, codebooks=3), torch.randn(1, 8)
    logits = head.code_logits(hidden, torch.tensor([[1, 2, 3]]))[0]
    changed = [head.code_logits(hidden, torch.tensor([ids]))[0] for ids in ([0, 2, 3], [1, 0, 3], [1, 2, 0])]
    same = [[torch.equal(row, other) for row, other in zip(logits, each, strict=True)] for each in changed]
    assert same == [[True, False, False], [True, True, False], [True, True, True]]


def test_what_is_walked_is_what_is_read() -> None:
    head, hidden, told = CodeHead(8, 4, codebooks=3), torch.randn(5, 8), []

    def choose(logits: torch.Tensor) -> torch.Tensor:
        told.append(logits)
        return logits.argmin(1)

    ids = head.walk(hidden, choose)
    assert_close(head.code_logits(hidden, ids), torch.stack(told, 1))


def test_it_learns_an_id_that_neither_the_state_nor_the_id_before_tells_alone() -> None:
    """The second id is whether the first one equals what the hidden state says."""
    head = CodeHead(16, 2, codebooks=2)
    said, first = torch.randint(2, (2, 256))
    hidden = F.one_hot(said, 16).float()
    codes = torch.stack([first, first ^ said], dim=1)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(60):
        loss = head.code_nats(hidden, codes).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.8  # of the first id, which is drawn by chance, ln 2 is left


@pytest.mark.parametrize("codebooks", [1, 3])
def test_a_code_reads_as_the_sum_of_its_ids(codebooks: int) -> None:
    tables = nn.Embedding(codebooks * 5, 8)
    ids = torch.randint(5, (7, codebooks))
    expected = sum(tables.weight[5 * depth + ids[:, depth]] for depth in range(codebooks))
    assert_close(embed_codes(tables, ids if codebooks > 1 else ids[:, 0]), expected)
