"""Compiling a tokenizer changes no number, and costs the adaptive weight nothing."""

import copy

import pytest
import torch

from vltok.losses.adversarial import adaptive_weight, gradient_at
from vltok.training.compilation import compile_tokenizer


def test_a_compiled_tokenizer_gives_the_same_losses_and_gradients(tokenizer, images):
    tokenizer.eval()
    compiled = copy.deepcopy(tokenizer)
    compile_tokenizer(compiled, backend="aot_eager")
    gradients, weights = [], []
    for each in (tokenizer, compiled):
        output = each(images)
        distance = (output.reconstruction - images).abs().mean()
        pulls = [gradient_at(output.reconstruction, loss) for loss in (distance, output.reconstruction.mean())]
        weight = adaptive_weight(output.reconstruction, *pulls, each.last_layer, maximum=None)
        (distance + weight * output.reconstruction.mean() + output.losses["quantization"]).backward()
        gradients.append({name: parameter.grad for name, parameter in each.named_parameters()})
        weights.append(weight)
    torch.testing.assert_close(weights[1], weights[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_the_last_layer_is_outside_of_every_graph(tokenizer, images):
    seen = []

    def backend(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    compile_tokenizer(tokenizer, backend=backend)
    tokenizer(images).reconstruction.mean().backward()
    assert any("conv2d" in target for target in seen)
    assert not any("conv_transpose2d" in target for target in seen)


def test_a_copy_runs_its_own_last_layer(tokenizer, images):
    tokenizer.eval()
    compile_tokenizer(tokenizer, backend="aot_eager")
    copied = copy.deepcopy(tokenizer)
    with torch.no_grad():
        copied.out.bias += 1
        difference = copied(images).reconstruction - tokenizer(images).reconstruction
    torch.testing.assert_close(difference, torch.ones_like(difference))
    assert copied.state_dict().keys() == tokenizer.state_dict().keys()


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 3e-2)])
def test_a_compiled_tokenizer_gives_the_same_on_a_gpu(tokenizer, images, dtype, tolerance):
    tokenizer.eval().cuda()
    compiled = copy.deepcopy(tokenizer)
    compile_tokenizer(compiled)
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        found, expected = (each(images.cuda()).reconstruction.float() for each in (compiled, tokenizer))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
