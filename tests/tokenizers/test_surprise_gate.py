"""The gate by a small prior's surprise: what it reads and learns, and that it finds what is planted."""

import pytest
import torch
import torch.nn.functional as F

from vltok.errors import UserError
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.quantizers import EMAVectorQuantizer
from vltok.tokenizers.surprise_gate import SurpriseGate

DUAL = {4: 0.25, 8: 0.75}
TRIPLE = {4: 0.125, 8: 0.625, 16: 0.25}
CODES = 8


def planted(batch: int, granularities: int = 2) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Features that show one of 8 codes at each place, the codes, and which regions are noise, `[b h w]`.

    A quarter of the regions have a code for each place, the others one for all of them.
    """
    side = 2 ** (granularities - 1)
    noisy = torch.zeros(batch, 16).scatter(1, torch.rand(batch, 16).argsort(dim=1)[:, :4], 1.0).view(batch, 1, 4, 4)
    even = F.interpolate(torch.zeros(batch, 1, 4, 4), scale_factor=side)
    noise = torch.randint(CODES, (batch, 1, 4 * side, 4 * side)).float()
    codes = torch.where(F.interpolate(noisy, scale_factor=side) > 0, noise, even)[:, 0].long()
    finest = torch.cat([F.one_hot(codes, CODES).movedim(-1, 1).float(), F.interpolate(noisy, scale_factor=side)], dim=1)
    features = [F.avg_pool2d(finest, 2**k) for k in reversed(range(granularities))]
    return features, codes, noisy[:, 0].long()


def images(features: list[torch.Tensor]) -> torch.Tensor:
    """It looks at the features alone."""
    return torch.zeros(len(features[0]), 3, 1, 1)


def trained(ratios: dict[int, float], steps: int = 100) -> SurpriseGate:
    gate = SurpriseGate(CODES + 1, CODES, ratios, hidden=32)
    optimizer = torch.optim.Adam(gate.parameters(), 2e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-2 * (1 - step / steps)
        features, codes, _ = planted(8, len(ratios))
        gate(features, images(features))
        optimizer.zero_grad()
        gate.foresee(features, codes).backward()
        optimizer.step()
    return gate.eval()


@pytest.mark.parametrize("ratios", [DUAL, TRIPLE])
def test_what_cannot_be_foreseen_gets_the_codes(ratios: dict[int, float]) -> None:
    gate = trained(ratios)
    features, codes, noisy = planted(64, len(ratios))
    decision = gate(features, images(features))
    shares = torch.bincount(decision.grains.flatten(), minlength=len(ratios)) / decision.grains.numel()
    torch.testing.assert_close(shares, torch.tensor(gate.ratios.shares), rtol=0, atol=0.08)
    surprise = decision.step_scores[:, 0]
    # a region's first place may follow an even one, so that noise too is not all surprise
    ranked = surprise.flatten().sort(descending=True).indices[: int(noisy.sum())]
    assert noisy.flatten()[ranked].float().mean() > 0.8
    assert gate.foresee(features, codes) < 0.7 * torch.tensor(CODES).log()


def test_it_reads_what_stands_before_and_nothing_else() -> None:
    gate = SurpriseGate(CODES + 1, CODES, DUAL, reach=2).eval()
    features, _, _ = planted(1)
    before = gate(features, images(features)).step_scores[0, 0]
    changed = features[1].clone()
    changed[:, :, 3, 3] += 1.0  # the last place of region (1, 1)
    after = gate([features[0], changed], images(features)).step_scores[0, 0]
    # the next places of its row and those of the two rows below, within reach
    touched = {(1, 2), (2, 0), (2, 1), (2, 2)}
    assert {tuple(place) for place in (before != after).nonzero().tolist()} == touched


def tokenizer(gate: SurpriseGate) -> DQVAE:
    return DQVAE(
        PatchEncoder([4, 8], width=16, blocks=1, channels=16),
        gate,
        EMAVectorQuantizer(CODES, 4),
        PixelShuffleDecoder(4, channels=16, width=16, blocks=1),
    )


def test_it_learns_from_the_finest_codes_of_every_region(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[torch.Tensor] = []
    gate = SurpriseGate(16, CODES, DUAL)
    model = tokenizer(gate).train()

    def foresee(features: list[torch.Tensor], codes: torch.Tensor) -> torch.Tensor:
        shown.append(codes)
        return SurpriseGate.foresee(gate, features, codes)

    monkeypatch.setattr(gate, "foresee", foresee)
    pictures = torch.rand(4, 3, 32, 32) * 2 - 1
    output = model(pictures)
    assert shown[0].equal(model.alternatives(pictures).code_maps[-1])
    assert model.training and gate.training
    output.losses["gate"].backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in gate.parameters())


def test_any_rate_can_be_asked_for() -> None:
    model = tokenizer(SurpriseGate(16, CODES, DUAL)).eval()
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    for codes in (16, 37, 64):
        assert model.encode(pictures, rate=f"codes={codes}").lengths.tolist() == [codes, codes]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"gate\.codebook_size is 9, but the quantizer has 8 codes"):
        tokenizer(SurpriseGate(16, 9, DUAL))
    with pytest.raises(UserError, match="two factors or more"):
        SurpriseGate(16, CODES, {8: 1.0})
    with pytest.raises(UserError, match=r"gate\.reach must be at least 1, not 0"):
        SurpriseGate(16, CODES, DUAL, reach=0)
    with pytest.raises(UserError, match=r"gate\.channels is 16, but the encoder's features have 9"):
        features, _, _ = planted(1)
        SurpriseGate(16, CODES, DUAL)(features, images(features))
