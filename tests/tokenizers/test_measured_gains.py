import pytest
import torch

from tests.tokenizers.test_dqvae import SETS, pictures, tiny
from vltok.codes import Codes
from vltok.measures.regions import region_errors
from vltok.tokenizers.measured_gains import measured_alternatives


@pytest.mark.parametrize("factors", [factors for factors in SETS if len(factors) > 1], ids=str)
def test_a_step_gains_what_the_error_of_its_region_falls_by(factors):
    torch.manual_seed(0)
    tokenizer = tiny(factors, "gain").eval()
    images = pictures(2, 64, 48)
    found = measured_alternatives(tokenizer, images)
    spec, grains = tokenizer.spec, found.decision.grains
    costs = torch.tensor(spec.codes_per_region).diff()

    def error(granularity: int) -> torch.Tensor:
        changed = grains.clone()
        changed[1, 0, 1] = granularity
        codes = Codes.from_code_map(found.mixture(changed), changed, spec)
        return region_errors(tokenizer.decode(codes), images, spec.factors[0])[1, 0, 1]

    for step, cost in enumerate(costs):
        expected = (error(step) - error(step + 1)) / cost
        torch.testing.assert_close(found.decision.step_scores[1, step, 0, 1], expected, rtol=0.05, atol=1e-2)


def test_codes_that_are_placed_by_what_they_gain_leave_less_error_than_at_random():
    torch.manual_seed(0)
    tokenizer = tiny((4, 8), "random").eval()
    images = pictures(4, 64, 64)
    errors = {
        rate: region_errors(tokenizer.decode(tokenizer.encode(images, rate)), images, 8).flatten(1).sum(1)
        for rate in ("codes=160", "codes=160,measured")
    }
    assert (errors["codes=160,measured"] < errors["codes=160"]).all()
    own = tokenizer.encode(images, "max-codes=256,measured")
    assert own.grains.equal(tokenizer.encode(images).grains)
