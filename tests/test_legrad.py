"""LeGrad beside its definition, written out for two families of transformers."""

import numpy as np
import pytest
import torch
from torch import nn

from dff.errors import LayerError, ModelError, UsageError
from dff.maps import upsample
from gradcam import LeGrad
from tests.toys import ConvNet, TokenNet, images, seeded, untouched


def by_definition(model, x, classes):
    """Maps (blocks, n, 4, 4) of a TokenNet, each block's attention written out."""
    tokens = model.patch(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([model.token.expand(len(x), -1, -1), tokens], 1) + model.position
    maps = []
    for block in model.blocks:
        attention = block.self_attn
        mixed = nn.functional.linear(
            block.norm1(tokens), attention.in_proj_weight, attention.in_proj_bias
        )
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in mixed.chunk(3, -1))
        A = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
        after = tokens + attention.out_proj((A @ v).transpose(1, 2).flatten(2))
        tokens = after + block.linear2(nn.functional.gelu(block.linear1(block.norm2(after))))
        score = model.head(tokens[:, 0])[range(len(x)), classes].sum()
        (gradient,) = torch.autograd.grad(score, A, retain_graph=True)
        maps.append(gradient.relu().mean((1, 2))[:, 1:].reshape(len(x), 4, 4))
    return torch.stack(maps).detach()


@pytest.mark.parametrize("frozen", [False, True])
def test_blocks_of_torch(frozen):
    model, x = seeded(TokenNet), images(2, 3, 32, 32)
    expected = by_definition(model, x, [1, 4])
    if frozen:
        model.requires_grad_(False)
    with untouched(model.train()), torch.no_grad():
        cam = LeGrad(model, normalise=False)
        ours = cam(x, [1, 4])
        last = LeGrad(model, ["blocks.2"], normalise=False)(x, [1, 4])
    np.testing.assert_allclose(ours, upsample(expected.sum(0), (32, 32)), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(last, upsample(expected[2], (32, 32)), rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(cam.outputs, model.eval()(x).detach())


@pytest.mark.parametrize("fused", [False, True])
def test_blocks_of_timm(fused):
    timm = pytest.importorskip("timm", reason="needs timm (the test extra)")
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2,
               "num_classes": 5}  # fmt: skip
    model, x = seeded(lambda: timm.models.VisionTransformer(**options)), images(2, 3, 32, 32)
    model.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    for block in model.blocks:
        block.attn.fused_attn = False
    kept = {}

    def keep(key):
        return lambda module, inputs, output: kept.__setitem__(key, output)

    handles = [
        handle
        for i, block in enumerate(model.blocks)
        for handle in (
            block.attn.attn_drop.register_forward_hook(keep(("A", i))),
            block.register_forward_hook(keep(("tokens", i))),
        )
    ]
    model(x)
    for handle in handles:
        handle.remove()
    expected = 0
    for i in range(3):
        score = model.head(model.norm(kept["tokens", i])[:, 0])[[0, 1], [1, 4]].sum()
        (gradient,) = torch.autograd.grad(score, kept["A", i], retain_graph=True)
        expected = expected + gradient.relu().mean((1, 2))[:, 1:].reshape(2, 4, 4)
    for block in model.blocks:
        block.attn.fused_attn = fused
    with untouched(model):
        ours = LeGrad(model, normalise=False)(x, [1, 4])
    np.testing.assert_allclose(ours, upsample(expected, (32, 32)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_blocks_of_transformers(attention):
    hf = pytest.importorskip("transformers", reason="needs transformers (the test extra)")
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    config = hf.ViTConfig(**sizes, num_hidden_layers=3, image_size=32, patch_size=8, num_labels=5)
    build = hf.ViTForImageClassification._from_config
    model = seeded(lambda: build(config, attn_implementation=attention))
    x = images(2, 3, 32, 32)
    with untouched(model):
        maps = LeGrad(model)(x, [1, 4])
    assert maps.shape == (2, 32, 32)
    assert maps.max((1, 2)) == pytest.approx([1, 1], abs=1e-5)

    def transform(tokens):
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))

    np.testing.assert_allclose(LeGrad(model, None, transform)(x, [1, 4]), maps, atol=1e-6)


def test_what_cannot_have_it():
    with pytest.raises(ModelError, match="ConvNet has none: GradCAM, LayerCAM"):
        LeGrad(seeded(ConvNet))
    model, x = seeded(TokenNet), images(2, 3, 32, 32)
    with pytest.raises(LayerError, match=r"no block with an attention; they are 'blocks.0' to"):
        LeGrad(model, ["patch"])
    with untouched(model), pytest.raises(UsageError, match="each of 2 images, got 1"):
        LeGrad(model)(x, [1])
