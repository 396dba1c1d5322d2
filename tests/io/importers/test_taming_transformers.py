import torch
import torch.nn.functional as F
import yaml

from vltok.io.importers.taming_transformers import TamingTransformers

from .foreign import vqgan_state


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


def test_no_configuration_is_needed(official, tmp_path) -> None:
    config, state = official("taming_vqgan_imagenet_f16_1024")
    importer = TamingTransformers()
    assert importer.recognises(state)
    assert importer.convert({}, state, tmp_path).config == importer.convert(config, state, tmp_path).config


def test_a_trunk_without_attention_is_one(build, tmp_path) -> None:
    """As latent-diffusion's `attn_type: none` makes them."""
    state = {name: value for name, value in vqgan_state().items() if "attn" not in name}
    imported = TamingTransformers().convert({}, state, tmp_path)
    build(imported.config).load_state_dict(imported.state)


def test_gumbel_vqgan_scores_its_codes(parity, build, tmp_path) -> None:
    """By its published definition: codes are the largest of a 1×1 convolution's outputs, and embedded by a table."""
    tensors, _ = parity("vqgan")
    state = {key[3:]: value for key, value in tensors.items() if key.startswith("sd.")}
    dimension = state.pop("quantize.embedding.weight").shape[1]
    state["quantize.proj.weight"], state["quantize.proj.bias"] = torch.randn(50, dimension, 1, 1), torch.randn(50)
    state["quantize.embed.weight"] = torch.randn(50, dimension)
    assert TamingTransformers().recognises(state)
    tokenizer = build(TamingTransformers().convert({}, state, tmp_path).config)
    tokenizer.load_state_dict(TamingTransformers().convert({}, state, tmp_path).state)
    images = tensors["in.x"]
    vectors = F.conv2d(tensors["out.encoder"], state["quant_conv.weight"], state["quant_conv.bias"])
    expected = F.conv2d(vectors, state["quantize.proj.weight"], state["quantize.proj.bias"]).argmax(1)
    codes = tokenizer.eval().encode(images)
    assert codes.to_code_map(tokenizer.spec).equal(expected)
    found = tokenizer.quantizer.lookup(expected)
    assert found.equal(state["quantize.embed.weight"][expected].permute(0, 3, 1, 2))
    torch.testing.assert_close(tokenizer.decode(codes), tokenizer.decoder(tokenizer.project_out(found)).detach())


def test_dropout_of_the_configuration_is_kept(official, tmp_path) -> None:
    config, state = official("taming_vqgan_imagenet_f16_1024")
    config["params"]["ddconfig"]["dropout"] = 0.1
    parts = TamingTransformers().convert(config, state, tmp_path).config["init_args"]
    assert parts["encoder"]["init_args"]["dropout"] == parts["decoder"]["init_args"]["dropout"] == 0.1
