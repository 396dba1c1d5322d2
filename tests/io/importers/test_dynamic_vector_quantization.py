import copy
import json

import pytest
import torch
import torch.nn.functional as F

from vltok.errors import UserError
from vltok.io.importers.dynamic_vector_quantization import DynamicVectorQuantization
from vltok.tokenizers import gates
from vltok.tokenizers.encoders import VQGANEncoder
from vltok.tokenizers.gates import FeatureGate

PUBLISHED = ["dqvae_entropy_dual_r05_imagenet", "dqvae_dual_feat_r05_imagenet", "dqvae_triple_feat_r03_03_imagenet"]


def write_table(folder, thresholds) -> None:
    table = folder / "scripts/tools/thresholds/entropy_thresholds_imagenet_train_patch-16.json"
    table.parent.mkdir(parents=True)
    table.write_text(json.dumps(thresholds))


@pytest.mark.parametrize("name", ["e2e_dual_feat", "e2e_triple_feat", "e2e_dual_entropy"])
def test_whole_models_equal_the_originals(parity, build, tmp_path, name) -> None:
    tensors, config = parity(name)
    params = config["kwargs"]
    if "in.threshold" in tensors:
        write_table(tmp_path, {"50": tensors["in.threshold"].item()})
        table = "scripts/tools/thresholds/entropy_thresholds_imagenet_train_patch-16.json"
        params["encoderconfig"]["params"]["router_config"]["params"]["json_path"] = table
    state = {key[3:]: value for key, value in tensors.items() if key.startswith("sd.")}
    imported = DynamicVectorQuantization().convert({"model": {"params": params}}, state, tmp_path)
    assert imported.dropped == ()
    if "in.threshold" in tensors:  # recorded with the bins of the later code
        imported.config["init_args"]["gate"]["init_args"]["bins"] = [-1.0, 1.0]
    tokenizer = build(imported.config)
    tokenizer.load_state_dict(imported.state)
    tokenizer.eval()
    codes = tokenizer.encode(tensors["in.x"])
    assert torch.equal(codes.grains, tensors["out.grain_indices"])
    assert torch.equal(codes.to_code_map(tokenizer.spec), tensors["out.indices"])
    torch.testing.assert_close(tokenizer.decode(codes), tensors["out.recon"], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(
            tokenizer(tensors["in.x"]).reconstruction, tensors["out.recon"], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("name", ["dual_encoder_feat_1fc", "dual_encoder_feat_2fc", "triple_encoder_feat_2fc"])
def test_gradients_through_encoder_and_gate_equal_the_originals(parity, monkeypatch, tmp_path, name) -> None:
    tensors, config = parity(name)
    params = {
        "encoderconfig": {"target": config["class"], "params": config["kwargs"]},
        "vqconfig": {"target": "VectorQuantize2", "params": {}},
    }
    others = {
        "quantize.codebook.weight": torch.empty(5, 32),
        "decoder.conv_in.weight": torch.empty(32, 32, 3, 3),
        "decoder.conv_out.weight": torch.empty(3, 32, 3, 3),
        "decoder.up.0.block.0.conv2.weight": torch.empty(32, 32, 3, 3),
        "decoder.up.0.block.1.conv2.weight": torch.empty(32, 32, 3, 3),
    }
    state = {f"encoder.{key[3:]}": value for key, value in tensors.items() if key.startswith("sd.")}
    imported = DynamicVectorQuantization().convert({"params": params}, {**state, **others}, tmp_path)
    parts = imported.config["init_args"]
    encoder, gate = VQGANEncoder(**parts["encoder"]["init_args"]), FeatureGate(**parts["gate"]["init_args"])
    model = torch.nn.ModuleDict({"encoder": encoder, "gate": gate})
    model.load_state_dict(
        {name: value for name, value in imported.state.items() if name.startswith(("encoder.", "gate."))}
    )

    monkeypatch.setattr(gates, "gumbel_like", lambda _: tensors["train.gumbel_noise"].movedim(-1, 1))
    features = encoder(tensors["in.x"])
    decision = gate(features, tensors["in.x"])
    size = features[-1].shape[2:]
    routed = sum(
        F.interpolate(feature, size) * F.interpolate(decision.weights[:, granularity, None], size)
        for granularity, feature in enumerate(features)
    )
    upstream = next(value for key, value in tensors.items() if key.startswith("train.upstream_h"))
    ((routed * upstream).sum() + (decision.assignment * tensors["train.upstream_gate"]).sum()).backward()

    gradients = {f"encoder.{key[11:]}": value for key, value in tensors.items() if key.startswith("train.grad.")}
    shaped = {name: torch.empty(value.shape) for name, value in state.items()} | others
    renamed = DynamicVectorQuantization().convert({"params": params}, {**shaped, **gradients}, tmp_path).state
    assert len(gradients) >= 9
    given = {value.data_ptr() for value in gradients.values()}
    for key, expected in renamed.items():
        if expected.data_ptr() not in given:
            continue
        # where gradients reach 159, the recorded ones are themselves off those of float64 by 8e-4
        noise = max(1e-4, 1e-5 * expected.abs().max().item())
        torch.testing.assert_close(model.get_parameter(key).grad, expected, rtol=1e-3, atol=noise)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_tensor_of_the_published_models_has_its_place(official, build, tmp_path, name) -> None:
    config, state = official(name)
    write_table(tmp_path, {"50": 1.5})
    configs = tmp_path / "configs/stage1"  # tables are found from the folder of the configuration upward
    imported = DynamicVectorQuantization().convert(config, state, configs)
    with torch.device("meta"):
        expected = build(imported.config).state_dict()
    shapes = {name: tensor.shape for name, tensor in imported.state.items()}
    assert shapes == {name: tensor.shape for name, tensor in expected.items()}
    assert all(name.startswith("loss.") for name in imported.dropped)
    added = "gate.thresholds" in imported.state
    assert len(imported.dropped) + len(imported.state) == len(state) + added


def test_published_thresholds_go_with_the_bins_that_they_were_made_with(official, tmp_path) -> None:
    config, state = official("dqvae_entropy_dual_r05_imagenet")
    router = config["params"]["encoderconfig"]["params"]["router_config"]["params"]
    router["fine_grain_ratito"] = 0.3
    write_table(tmp_path, {"50": 1.5, "70": 2.25})
    imported = DynamicVectorQuantization().convert(config, state, tmp_path)
    assert imported.state["gate.thresholds"].tolist() == [2.25]  # the entropy that 70% do not exceed
    assert imported.config["init_args"]["gate"]["init_args"] == {"ratios": {8: 0.3, 16: 0.7}, "bins": [0.0, 1.0]}


@pytest.mark.parametrize("path", ["../table.json", "/etc/hostname", "a/../../table.json"])
def test_a_table_outside_of_the_repository_is_not_read(official, tmp_path, path) -> None:
    config, state = official("dqvae_entropy_dual_r05_imagenet")
    config["params"]["encoderconfig"]["params"]["router_config"]["params"]["json_path"] = path
    with pytest.raises(UserError, match="not a path in its repository"):
        DynamicVectorQuantization().convert(config, state, tmp_path)


@pytest.mark.parametrize(("thresholds", "message"), [(None, "no folder from"), ({"40": 1.0}, "with an entry '50'")])
def test_missing_thresholds_are_named(official, tmp_path, thresholds, message) -> None:
    config, state = official("dqvae_entropy_dual_r05_imagenet")
    if thresholds is not None:
        write_table(tmp_path, thresholds)
    with pytest.raises(UserError, match=message):
        DynamicVectorQuantization().convert(config, state, tmp_path)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["encoderconfig", "params", "router_config", "target"], "a.Router", "router is called 'Router'"),
        (["encoderconfig", "params", "router_config", "params", "gate_type"], "3layer-fc", "2layer-fc-SiLu"),
        (["encoderconfig", "params", "router_config", "params", "gate_type"], "1layer-fc", "gate has 2 layers"),
        (["encoderconfig", "params", "router_config"], None, "no 'encoderconfig.params.router_config'"),
        (["vqconfig", "target"], "a.VQEmbedding", "quantizer is called 'VQEmbedding'"),
    ],
)
def test_what_has_no_counterpart_is_named(official, tmp_path, keys, value, message) -> None:
    config, state = copy.deepcopy(official("dqvae_triple_feat_r03_03_imagenet"))
    place = config["params"]
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    with pytest.raises(UserError, match=message):
        DynamicVectorQuantization().convert(config, state, tmp_path)


@pytest.mark.parametrize(
    ("kind", "moved"),
    [("fourier", "position_bias"), ("learned", "position_bias")],
)
def test_other_kinds_of_position(official, build, tmp_path, kind, moved) -> None:
    config, state = official("dqvae_dual_feat_r05_imagenet")
    config["params"]["decoderconfig"]["params"]["position_type"] = kind
    kept = f"decoder.position_bias_{kind}."
    state = {
        name.replace(kept, f"decoder.{moved}."): tensor
        for name, tensor in state.items()
        if not name.startswith("decoder.position_bias") or name.startswith(kept)
    }
    imported = DynamicVectorQuantization().convert(config, state, tmp_path)
    with torch.device("meta"):
        assert build(imported.config).state_dict().keys() == imported.state.keys()
    # the original never adds learned positions alone, so they are left out
    left_out = [name for name in imported.dropped if name.startswith("decoder.")]
    assert len(left_out) == (2 if kind == "learned" else 0)


@pytest.mark.parametrize("name", PUBLISHED[1:])
def test_without_a_configuration_what_is_assumed_is_told(official, tmp_path, name) -> None:
    config, state = official(name)
    told, untold = (DynamicVectorQuantization().convert(each, state, tmp_path) for each in (config, {}))
    assert DynamicVectorQuantization().recognises(state)
    assert untold.config == told.config and not told.assumed
    assert untold.assumed == (
        "gate_type is 2layer-fc-SiLu (it may be 2layer-fc-ReLu)",
        "normalization_type is group-32",
    )


def test_thresholds_stand_in_no_checkpoint(official, tmp_path) -> None:
    _, state = official(PUBLISHED[0])
    with pytest.raises(UserError, match="give the configuration"):
        DynamicVectorQuantization().convert({}, state, tmp_path)


def test_a_gate_with_relu_decides_as_the_original(parity, build, tmp_path) -> None:
    """By its definition: linear, ReLU, linear on the normed features of each region."""
    tensors, config = parity("e2e_dual_feat")
    params = copy.deepcopy(config["kwargs"])
    state = {key[3:]: value for key, value in tensors.items() if key.startswith("sd.")}
    params["encoderconfig"]["params"]["router_config"]["params"]["gate_type"] = "2layer-fc-ReLu"
    imported = DynamicVectorQuantization().convert({"params": params}, state, tmp_path)
    tokenizer = build(imported.config)
    tokenizer.load_state_dict(imported.state)
    gate = tokenizer.eval().gate
    features = tokenizer.encoder(tensors["in.x"])
    pooled = [
        F.avg_pool2d(norm(feature), feature.shape[2] // features[0].shape[2])
        for norm, feature in zip(gate.norms, features, strict=True)
    ]
    rows = torch.cat(pooled, dim=1).movedim(1, -1)
    rows = (rows @ state["encoder.router.gate.0.weight"].T + state["encoder.router.gate.0.bias"]).relu()
    expected = rows @ state["encoder.router.gate.2.weight"].T + state["encoder.router.gate.2.bias"]
    assert gate(features, tensors["in.x"]).grains.equal(expected.argmax(-1))
