import pytest
import torch
import yaml

from vltok.errors import UserError
from vltok.io.importers.taming_transformers import TamingTransformers


def model(config) -> dict:
    keys = {"ddconfig": config["ddconfig"], "n_embed": config["n_embed"], "embed_dim": config["embed_dim"]}
    return {"model": {"target": "taming.models.vqgan.VQModel", "params": keys}}


def test_codes_and_images_equal_the_originals(parity, build, tmp_path) -> None:
    tensors, config = parity("vqgan")
    state = {key[3:]: value for key, value in tensors.items() if key.startswith("sd.")}
    torch.save({"state_dict": state, "epoch": 7}, tmp_path / "last.ckpt")
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(model(config)))
    imported = TamingTransformers().read(tmp_path / "last.ckpt", tmp_path / "model.yaml")
    assert imported.dropped == ()
    tokenizer = build(imported.config)
    tokenizer.load_state_dict(imported.state)
    tokenizer.eval()
    torch.testing.assert_close(tokenizer.encoder(tensors["in.x"])[0], tensors["out.encoder"], rtol=1e-4, atol=1e-4)
    codes = tokenizer.encode(tensors["in.x"])
    assert torch.equal(codes.to_code_map(tokenizer.spec), tensors["out.indices"])
    torch.testing.assert_close(tokenizer.decode(codes), tensors["out.recon"], rtol=1e-4, atol=1e-4)


def test_every_tensor_of_the_published_model_has_its_place(official, build, tmp_path) -> None:
    config, state = official("taming_vqgan_imagenet_f16_1024")
    imported = TamingTransformers().convert(config, state, tmp_path)
    with torch.device("meta"):
        expected = build(imported.config).state_dict()
    shapes = {name: tensor.shape for name, tensor in imported.state.items()}
    assert shapes == {name: tensor.shape for name, tensor in expected.items()}
    assert all(name.startswith("loss.") for name in imported.dropped)
    assert len(imported.dropped) + len(imported.state) == len(state)


def test_other_models_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"GumbelVQ.*there are: taming\.models\.vqgan\.VQModel"):
        TamingTransformers().convert({"target": "taming.models.vqgan.GumbelVQ", "params": {}}, {}, tmp_path)
    with pytest.raises(UserError, match="no 'params'"):
        TamingTransformers().convert({"model": {"target": "taming.models.vqgan.VQModel"}}, {}, tmp_path)
