import math

import pytest
import torch
from torch import nn

from vltok.errors import UserError
from vltok.tokenizers import quantizers
from vltok.tokenizers.quantizers import EMAVectorQuantizer, VectorQuantizer, mean_square, nearest_codes

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def original(tensors: dict, config: dict, prefix: str, restart: bool = False) -> EMAVectorQuantizer:
    """The original's quantizer in the state that a fixture names; its last codebook row is padding."""
    quantizer = EMAVectorQuantizer(config["K"], config["D"], config["beta"], config["decay"], config["eps"], restart)
    quantizer.load_state_dict(
        {
            "codebook": tensors[f"{prefix}.codebook.weight"][:-1],
            "counts": tensors[f"{prefix}.codebook.cluster_size_ema"],
            "sums": tensors[f"{prefix}.codebook.embed_ema"],
        }
    )
    return quantizer


def assert_state(quantizer: EMAVectorQuantizer, tensors: dict, prefix: str) -> None:
    torch.testing.assert_close(quantizer.codebook, tensors[f"{prefix}.codebook.weight"][:-1], **CLOSE)
    torch.testing.assert_close(quantizer.counts, tensors[f"{prefix}.codebook.cluster_size_ema"], **CLOSE)
    torch.testing.assert_close(quantizer.sums, tensors[f"{prefix}.codebook.embed_ema"], **CLOSE)


def test_codes_loss_and_gradient_equal_the_originals(parity) -> None:
    tensors, config = parity("quantizer")
    quantizer = original(tensors, config, "sd").eval()
    vectors = tensors["in.x"].requires_grad_()
    plain, masked = quantizer(vectors), quantizer(vectors, tensors["in.codebook_mask"])
    assert torch.equal(plain.ids, tensors["out.indices"])
    torch.testing.assert_close(plain.vectors, tensors["out.quantized"], **CLOSE)
    torch.testing.assert_close(plain.loss, tensors["out.loss_nomask"], **CLOSE)
    # the original does not divide by the mean weight
    scale = tensors["in.codebook_mask"].mean()
    torch.testing.assert_close(masked.loss * scale, tensors["out.loss_masked"], **CLOSE)
    torch.testing.assert_close(quantizer.lookup(plain.ids).movedim(1, -1), tensors["out.codebook_entry"], **CLOSE)
    total = (masked.vectors * tensors["grad.upstream"]).sum() + tensors["grad.loss_weight"] * masked.loss * scale
    (gradient,) = torch.autograd.grad(total, vectors)
    torch.testing.assert_close(gradient, tensors["grad.x"], rtol=1e-3, atol=1e-4)


def test_moving_averages_equal_the_originals(parity) -> None:
    tensors, config = parity("quantizer")
    quantizer = original(tensors, config, "ema.before")
    for step in ("ema.step1", "ema.step2"):
        # the original counts copies of a coarse code as codes: no weights
        found = quantizer(tensors[f"{step}.in.x"])
        assert torch.equal(found.ids, tensors[f"{step}.indices"])
        torch.testing.assert_close(found.vectors, tensors[f"{step}.quantized"], **CLOSE)
        assert_state(quantizer, tensors, f"{step}.after")


@pytest.mark.parametrize("case", ["restart", "restart_tiled"])
def test_restarts_equal_the_originals(parity, monkeypatch, case) -> None:
    tensors, config = parity("quantizer")
    quantizer = original(tensors, config, f"{case}.before", restart=True)
    monkeypatch.setattr(quantizers, "draw_without_replacement", lambda _, count: tensors[f"{case}.perm"][:count])
    if case == "restart_tiled":
        vectors = tensors["restart_tiled.in.x"].movedim(1, -1).reshape(-1, config["D"])
        noise = tensors["restart_tiled.tiled_vectors"] - vectors.repeat(3, 1)
        monkeypatch.setattr(torch, "rand_like", lambda _: noise / (0.01 / math.sqrt(config["D"])))
    found = quantizer(tensors[f"{case}.in.x"])
    assert torch.equal(found.ids, tensors[f"{case}.indices"])
    torch.testing.assert_close(found.vectors, tensors[f"{case}.quantized"], **CLOSE)
    torch.testing.assert_close(found.loss, tensors[f"{case}.loss_nomask"], **CLOSE)
    assert_state(quantizer, tensors, f"{case}.after")


def test_codes_and_loss_equal_vqgans(parity) -> None:
    tensors, config = parity("vqgan")
    quantizer = VectorQuantizer(config["n_embed"], config["embed_dim"], config["beta"])
    quantizer.load_state_dict({"codebook": tensors["sd.quantize.embedding.weight"]})
    found = quantizer(tensors["out.pre_quant"])
    assert torch.equal(found.ids.flatten(), tensors["out.indices"].flatten())
    torch.testing.assert_close(found.vectors, tensors["out.quantized"], **CLOSE)
    torch.testing.assert_close(found.loss, tensors["out.loss_nonlegacy"], **CLOSE)
    torch.testing.assert_close(quantizer.lookup(found.ids), tensors["out.codebook_entry"], **CLOSE)


@pytest.mark.parametrize("make", [VectorQuantizer, EMAVectorQuantizer])
def test_search_is_exhaustive_in_bounded_pieces(make, monkeypatch) -> None:
    quantizer = make(50, 6).eval()
    vectors = torch.randn(2, 6, 7, 9)
    quantizer.codebook.data.copy_(torch.randn(50, 6))
    distances = torch.cdist(vectors.movedim(1, -1).reshape(-1, 6).double(), quantizer.codebook.double())
    held = []
    addmm = torch.addmm

    def counting(*arguments, **options) -> torch.Tensor:
        held.append(addmm(*arguments, **options))
        return held[-1]

    monkeypatch.setattr(torch, "addmm", counting)
    monkeypatch.setattr(quantizers, "MOST_DISTANCES", 1000)
    assert torch.equal(quantizer(vectors).ids.flatten(), distances.argmin(dim=1))
    assert len(held) == math.ceil(126 / 20) and max(piece.numel() for piece in held) <= 1000
    monkeypatch.setattr(quantizers, "MOST_DISTANCES", 1)  # fewer than one vector needs: one at a time
    assert torch.equal(quantizer(vectors).ids.flatten(), distances.argmin(dim=1))


def test_distances_keep_their_digits_far_from_the_origin() -> None:
    codebook, vectors = torch.randn(64, 16) + 1000, torch.randn(1, 16, 20, 20) + 1000
    distances = torch.cdist(vectors.movedim(1, -1).reshape(-1, 16).double(), codebook.double())
    assert torch.equal(nearest_codes(vectors, codebook).flatten(), distances.argmin(dim=1))


def test_of_equally_near_codes_the_first_is_taken() -> None:
    codebook = torch.tensor([[5.0], [1.0], [-1.0], [1.0]])
    assert nearest_codes(torch.tensor([[[[1.0, 0.0]]]]), codebook).flatten().tolist() == [1, 1]


def test_vectors_are_the_codebooks_exactly_and_pass_the_gradient_straight() -> None:
    for quantizer in (VectorQuantizer(20, 8).eval(), EMAVectorQuantizer(20, 8).eval()):
        vectors = (torch.randn(2, 8, 3, 5) * 10).requires_grad_()
        upstream = torch.randn(2, 8, 3, 5)
        found = quantizer(vectors)
        assert torch.equal(found.vectors, quantizer.lookup(found.ids))
        assert torch.equal(torch.autograd.grad((found.vectors * upstream).sum(), vectors)[0], upstream)


def test_the_loss_draws_each_side_to_the_other() -> None:
    quantizer = VectorQuantizer(4, 3, commitment=0.25).double()
    vectors = torch.randn(2, 3, 2, 2, dtype=torch.double, requires_grad=True)
    weights = torch.rand(2, 1, 2, 2, dtype=torch.double)
    found = quantizer(vectors, weights)
    difference = quantizer.lookup(found.ids).detach() - vectors.detach()
    share = 2 * weights / (3 * weights.sum())
    vector_gradient, codebook_gradient = torch.autograd.grad(found.loss, [vectors, quantizer.codebook])
    torch.testing.assert_close(vector_gradient, -0.25 * share * difference)
    expected = torch.zeros_like(codebook_gradient)
    expected.index_add_(0, found.ids.flatten(), (share * difference).movedim(1, -1).reshape(-1, 3))
    torch.testing.assert_close(codebook_gradient, expected)


def test_weighted_mean_has_the_right_gradient() -> None:
    difference = torch.randn(1, 2, 2, 3, dtype=torch.double, requires_grad=True)
    weights = torch.rand(1, 1, 2, 3, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda x: mean_square(x, weights), (difference,))


@pytest.mark.parametrize("make", [VectorQuantizer, EMAVectorQuantizer])
def test_a_code_that_stands_four_times_counts_once(make) -> None:
    """One coarse code on 2 × 2 cells and four fine ones, against the same five codes side by side."""
    on_grid, alone = make(6, 4), make(6, 4)
    on_grid.codebook.data.copy_(torch.randn(6, 4))
    alone.load_state_dict(on_grid.state_dict())
    codes = torch.randn(1, 4, 1, 5)
    grid = torch.cat([codes[..., :1].expand(-1, -1, 2, 2), codes[..., 1:].reshape(1, 4, 2, 2)], dim=3)
    weights = torch.tensor([[0.25, 0.25, 1, 1]] * 2)[None, None]
    if make is EMAVectorQuantizer:
        on_grid.restart = alone.restart = False
    torch.testing.assert_close(on_grid(grid, weights).loss, alone(codes).loss)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(on_grid.state_dict()[name], value)


def test_moving_averages_move_once_a_step_and_only_in_training() -> None:
    quantizer = EMAVectorQuantizer(8, 4, decay=0.9, restart=False)
    vectors = torch.randn(1, 4, 6, 6)
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer.eval()(vectors)
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())
    ids = quantizer.train()(vectors).ids
    found = torch.bincount(ids.flatten(), minlength=8).float()
    torch.testing.assert_close(quantizer.counts, 0.9 * before["counts"] + 0.1 * found)


def test_codes_that_nobody_uses_stay_where_they_are_without_restart() -> None:
    """The averages start consistent with the codebook: it neither jumps at the first step nor runs away."""
    quantizer = EMAVectorQuantizer(8, 4, restart=False)
    quantizer.codebook[0], quantizer.sums[0] = 100.0, 100.0
    far = quantizer.codebook[0].clone()
    first = quantizer.codebook.clone()
    quantizer(torch.randn(1, 4, 4, 4))
    assert (quantizer.codebook - first).abs().max() < 1
    for _ in range(500):
        quantizer(torch.randn(1, 4, 4, 4))
    # as its count falls, the smoothing lifts the divisor a little
    torch.testing.assert_close(quantizer.codebook[0], far, rtol=0.02, atol=0)
    assert quantizer.codebook[1:].abs().max() < 5


def test_with_restart_the_first_step_starts_the_codebook_from_data() -> None:
    quantizer = EMAVectorQuantizer(64, 8)
    centers = torch.randn(64, 8) * 5 + 20
    vectors = (centers.repeat(16, 1) + 0.01 * torch.randn(1024, 8)).T.reshape(1, 8, 32, 32)
    for _ in range(30):
        quantizer(vectors)
    assert quantizer.eval()(vectors).ids.unique().numel() > 48
    assert mean_square(quantizer(vectors).vectors - vectors) < 0.05 * vectors.var()


def test_restarts_with_fewer_vectors_than_codes_differ() -> None:
    quantizer = EMAVectorQuantizer(40, 8)
    quantizer(torch.randn(1, 8, 3, 3) + 50)
    assert (quantizer.codebook > 25).all(dim=1).sum() >= 39
    assert quantizer.codebook.unique(dim=0).shape[0] == 40


def test_places_without_weight_teach_nothing() -> None:
    quantizer = EMAVectorQuantizer(4, 2)
    vectors = torch.randn(1, 2, 4, 4)
    vectors[..., :2] += 1000
    weights = torch.ones(1, 1, 4, 4)
    weights[..., :2] = 0
    for _ in range(3):
        assert quantizer(vectors, weights).loss < 100
    assert quantizer.codebook.abs().max() < 100


def test_an_empty_batch() -> None:
    for quantizer in (VectorQuantizer(4, 2), EMAVectorQuantizer(4, 2)):
        before = quantizer.codebook.clone()
        found = quantizer(torch.zeros(0, 2, 3, 3))
        assert found.ids.shape == (0, 3, 3) and found.vectors.shape == (0, 2, 3, 3)
        torch.testing.assert_close(quantizer.codebook, before)


@pytest.mark.parametrize("make", [VectorQuantizer, EMAVectorQuantizer])
def test_autocast_changes_no_distance(make) -> None:
    quantizer, reference = make(64, 16), make(64, 16)
    reference.load_state_dict(quantizer.state_dict())
    vectors = torch.randn(2, 16, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        found = quantizer(vectors)
    torch.manual_seed(0)
    expected = reference(vectors.float())
    assert torch.equal(found.ids, expected.ids) and torch.equal(found.loss, expected.loss)
    assert found.vectors.dtype == torch.float32 and torch.equal(found.vectors, expected.vectors)
    for name, value in reference.state_dict().items():
        assert torch.equal(quantizer.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "quantizer.size"),
        ({"dimension": 0}, "quantizer.dimension"),
        ({"commitment": -1.0}, "quantizer.commitment"),
    ],
)
@pytest.mark.parametrize("make", [VectorQuantizer, EMAVectorQuantizer])
def test_arguments_out_of_range(make, arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        make(**arguments)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_decay_out_of_range(decay) -> None:
    with pytest.raises(UserError, match=r"quantizer\.decay"):
        EMAVectorQuantizer(4, 2, decay=decay)


def test_what_is_trained_and_what_is_stored() -> None:
    assert [name for name, _ in VectorQuantizer(4, 2).named_parameters()] == ["codebook"]
    assert list(EMAVectorQuantizer(4, 2).parameters()) == []
    assert set(EMAVectorQuantizer(4, 2).state_dict()) == {"codebook", "counts", "sums"}
    assert (EMAVectorQuantizer(4, 2).size, VectorQuantizer(4, 2).dimension) == (4, 2)
    assert isinstance(VectorQuantizer(4, 2).codebook, nn.Parameter)


@pytest.mark.parametrize("size", [1, 7, 200])
def test_of_equal_codes_the_first_is_taken(size):
    codebook = torch.randn(size, 4).repeat(3, 1)
    vectors = codebook[:size].T.reshape(1, 4, 1, size) + 0.01
    assert quantizers.nearest_codes(vectors, codebook).flatten().tolist() == list(range(size))
