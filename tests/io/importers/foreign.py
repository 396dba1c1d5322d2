"""Small checkpoints of other projects, with weights that differ in every place, biases and norms too."""

import torch
from torch import Tensor, nn


def vq_model(**changes) -> nn.Module:
    """A small `diffusers.VQModel` with random weights, attention and shortcuts."""
    from diffusers import VQModel

    arguments = {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        "layers_per_block": 1,
        "latent_channels": 6,
        "num_vq_embeddings": 40,
        "vq_embed_dim": 5,
    }
    model = VQModel(**arguments | changes).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            # norms and biases that a mix-up would show; weights as they are drawn
            if value.dim() == 1:
                value.add_(0.3 * torch.randn(value.shape))
            elif name == "quantize.embedding.weight":
                value.normal_(std=0.5)
    return model


def llamagen_state(width: int = 32, multipliers: tuple[int, ...] = (1, 2), blocks: int = 1) -> dict[str, Tensor]:
    """The tensors of a small tokenizer of LlamaGen, by the names that its code gives them."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, out: int, of: int, side: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, of, side, side), (out,)

    def norm(name: str, channels: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (channels,)

    def residual(name: str, of: int, out: int) -> None:
        norm(f"{name}.norm1", of)
        convolution(f"{name}.conv1", out, of, 3)
        norm(f"{name}.norm2", out)
        convolution(f"{name}.conv2", out, out, 3)
        if of != out:
            convolution(f"{name}.nin_shortcut", out, of, 1)

    def attention(name: str, channels: int) -> None:
        norm(f"{name}.norm", channels)
        for each in ("q", "k", "v", "proj_out"):
            convolution(f"{name}.{each}", channels, channels, 1)

    def middle(name: str, channels: int) -> None:
        residual(f"{name}.mid.0", channels, channels)
        attention(f"{name}.mid.1", channels)
        residual(f"{name}.mid.2", channels, channels)

    last, latent, dimension = len(multipliers) - 1, 12, 8
    convolution("encoder.conv_in", width, 3, 3)
    channels = width
    for level, multiplier in enumerate(multipliers):
        for block in range(blocks):
            residual(f"encoder.conv_blocks.{level}.res.{block}", channels, width * multiplier)
            channels = width * multiplier
            if level == last:
                attention(f"encoder.conv_blocks.{level}.attn.{block}", channels)
        if level != last:
            convolution(f"encoder.conv_blocks.{level}.downsample.conv", channels, channels, 3)
    middle("encoder", channels)
    norm("encoder.norm_out", channels)
    convolution("encoder.conv_out", latent, channels, 3)
    convolution("quant_conv", dimension, latent, 1)
    shapes["quantize.embedding.weight"] = (40, dimension)
    convolution("post_quant_conv", latent, dimension, 1)
    convolution("decoder.conv_in", channels, latent, 3)
    middle("decoder", channels)
    for index, level in enumerate(reversed(range(last + 1))):
        for block in range(blocks + 1):
            residual(f"decoder.conv_blocks.{index}.res.{block}", channels, width * multipliers[level])
            channels = width * multipliers[level]
            if level == last:
                attention(f"decoder.conv_blocks.{index}.attn.{block}", channels)
        if level:
            convolution(f"decoder.conv_blocks.{index}.upsample.conv", channels, channels, 3)
    norm("decoder.norm_out", channels)
    convolution("decoder.conv_out", 3, channels, 3)
    generator = torch.Generator().manual_seed(0)
    scales = {4: lambda shape: (shape[1] * shape[2] * shape[3]) ** -0.5, 1: lambda _: 0.3, 2: lambda _: 1.0}
    state = {
        name: torch.randn(shape, generator=generator) * scales[len(shape)](shape) for name, shape in shapes.items()
    }
    for name in state:
        if "norm" in name and name.endswith("weight"):
            state[name] += 1
    return state


def minigpt(
    first_stage: dict[str, Tensor], vqgan: dict, classes: int | None, layers: int = 2, width: int = 16, steps: int = 300
) -> tuple[dict, dict[str, Tensor]]:
    """The configuration and the tensors of a small Net2NetTransformer over a VQGAN's codes."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    size = vqgan["n_embed"]
    state = {
        "transformer.tok_emb.weight": random(size, width),
        "transformer.pos_emb": random(1, steps, width),
        "transformer.ln_f.weight": 1 + random(width),
        "transformer.ln_f.bias": random(width),
        "transformer.head.weight": random(size, width),
    }
    for layer in range(layers):
        block = f"transformer.blocks.{layer}"
        for norm in ("ln1", "ln2"):
            state[f"{block}.{norm}.weight"], state[f"{block}.{norm}.bias"] = 1 + random(width), random(width)
        for name, out, of in (
            *((f"attn.{each}", width, width) for each in ("key", "query", "value", "proj")),
            ("mlp.0", 4 * width, width),
            ("mlp.2", width, 4 * width),
        ):
            state[f"{block}.{name}.weight"], state[f"{block}.{name}.bias"] = random(out, of), random(out)
        state[f"{block}.attn.mask"] = torch.ones(steps, steps).tril()[None, None]
    state |= {f"first_stage_model.{name}": value for name, value in first_stage.items()}
    ddconfig = {key: vqgan[key] for key in ("ddconfig", "n_embed", "embed_dim")}
    params = {
        "transformer_config": {"params": {"n_layer": layers, "n_head": 4, "n_embd": width, "resid_pdrop": 0.1}},
        "first_stage_config": {"target": "taming.models.vqgan.VQModel", "params": ddconfig},
    }
    if classes is not None:
        params["cond_stage_config"] = {"target": "taming.modules.util.Labelator", "params": {"n_classes": classes}}
    return {"model": {"target": "taming.models.cond_transformer.Net2NetTransformer", "params": params}}, state


def vqgan_state() -> dict[str, Tensor]:
    """The tensors of a small VQGAN of taming-transformers: LlamaGen's are the same by other names."""
    state = llamagen_state()
    levels = 2
    for old, new in (("mid.0", "mid.block_1"), ("mid.1", "mid.attn_1"), ("mid.2", "mid.block_2"), (".res.", ".block.")):
        state = {name.replace(old, new): value for name, value in state.items()}
    for level in range(levels):
        up = (f"decoder.conv_blocks.{level}.", f"decoder.up.{levels - 1 - level}.")
        down = (f"encoder.conv_blocks.{level}.", f"encoder.down.{level}.")
        state = {name.replace(*up).replace(*down): value for name, value in state.items()}
    return state


def stack_gpt(
    tensors: dict[str, Tensor], config: dict, first_tensors: dict[str, Tensor], first_config: dict
) -> tuple[dict, dict[str, Tensor]]:
    """The configuration and the tensors of a small StackGPT with the DQ-VAE whose codes it models."""
    size = config["permuter"]["content_pad_code"]
    params = {
        "first_stage_config": {"params": first_config["kwargs"]},
        "transformer_config": {"params": config["transformer"]},
        "permuter_config": {"params": config["permuter"]},
    }
    if "n_classes" in config["cond"]:
        params["class_cond_stage_config"] = {"params": {"n_classes": config["cond"]["n_classes"]}}
    state = {f"transformer.{name[3:]}": value for name, value in tensors.items() if name.startswith("sd.")}
    for name, value in first_tensors.items():
        if name.startswith("sd."):
            # as many codes as the prior draws, and one for padding
            rows = {"quantize.codebook.weight": size + 1, "quantize.codebook.embed_ema": size}
            rows["quantize.codebook.cluster_size_ema"] = size
            if (own := name[3:]) in rows:
                value = value.repeat(4, *[1] * (value.dim() - 1))[: rows[own]]
            state[f"first_stage_model.{own}"] = value
    return {"model": {"params": params}}, state


def llamagen_gpt_state(width: int = 32, size: int = 40, classes: int = 3, layers: int = 2) -> dict[str, Tensor]:
    """The tensors of a small class-conditional GPT of LlamaGen, by the names that its code gives them."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.3)

    state = {
        "cls_embedding.embedding_table.weight": 4 * random(classes + 1, width),
        "tok_embeddings.weight": 4 * random(size, width),
        "norm.weight": 1 + random(width),
        "output.weight": 2 * random(size, width),
    }
    for layer in range(layers):
        for norm in ("attention_norm", "ffn_norm"):
            state[f"layers.{layer}.{norm}.weight"] = 1 + random(width)
        for name, out, of in (
            ("attention.wqkv", 3 * width, width),
            ("attention.wo", width, width),
            ("feed_forward.w1", 80, width),
            ("feed_forward.w3", 80, width),
            ("feed_forward.w2", width, 80),
        ):
            state[f"layers.{layer}.{name}.weight"] = random(out, of)
    return state
