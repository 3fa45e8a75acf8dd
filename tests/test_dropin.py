"""The tutorial of pytorch-grad-cam, with the import changed."""

import numpy as np
import pytest
import torch

from dff import DeepFeatureFactorization, show_factorization_on_image
from dff.errors import LayerError, UsageError
from tests.toys import ConvNet, TokenNet, images, seeded, untouched


def test_the_tutorials_lines():
    model = seeded(ConvNet).train()
    input_tensor = images(2, 3, 40, 56)
    kept = input_tensor.clone()
    with untouched(model):
        dff = DeepFeatureFactorization(
            model=model, target_layer=model.layer4, computation_on_concepts=model.fc
        )
        concepts, batch_explanations, concept_outputs = dff(input_tensor, 4)
    assert torch.equal(input_tensor, kept)
    assert concepts.shape == (12, 4)
    assert len(batch_explanations) == 2
    assert batch_explanations[0].shape == (4, 40, 56)
    assert min(e.min() for e in batch_explanations) >= 0
    assert max(e.max() for e in batch_explanations) <= 1
    assert concept_outputs.shape == (4, 5)
    probabilities = torch.softmax(torch.from_numpy(concept_outputs), axis=-1).numpy()
    labels = [f"class {row.argmax()}:{row.max():.2f}" for row in probabilities]
    rgb = np.random.default_rng(0).random((40, 56, 3), dtype=np.float32)
    before, maps = rgb.copy(), batch_explanations[0].copy()
    visualization = show_factorization_on_image(
        rgb, batch_explanations[0], image_weight=0.3, concept_labels=labels
    )
    assert visualization.dtype == np.uint8
    assert visualization.shape[0] == 40
    assert visualization.shape[1] > 56
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(batch_explanations[0], maps)


def test_without_a_computation():
    dff = DeepFeatureFactorization(seeded(ConvNet), "layer4")
    concepts, explanations = dff(images(1, 3, 32, 32), n_components=2)
    assert concepts.shape == (12, 2)
    assert len(explanations) == 1


def test_the_pass_ends_at_the_layer():
    model = seeded(ConvNet)
    ran = []
    handle = model.avgpool.register_forward_hook(lambda *_: ran.append(1))
    DeepFeatureFactorization(model, "layer4")(images(1, 3, 32, 32), 2)
    handle.remove()
    assert not ran


def test_tokens_with_and_without_a_reshape_transform():
    model, x = seeded(TokenNet), images(1, 3, 32, 32)

    def reshape_transform(tokens):
        return tokens[:, 1:, :].reshape(tokens.size(0), 4, 4, tokens.size(2)).permute(0, 3, 1, 2)

    plain = DeepFeatureFactorization(model, "blocks.1")(x, 3)
    given = DeepFeatureFactorization(model, "blocks.1", reshape_transform)(x, 3)
    np.testing.assert_allclose(plain[0], given[0], atol=1e-5)
    assert (plain[0] < 0).any(), "signed activations"


def test_wrong_arguments():
    with pytest.raises(LayerError, match="no layer 'layer9'"):
        DeepFeatureFactorization(seeded(ConvNet), "layer9")
    with pytest.raises(UsageError, match="from 1 on, not 0"):
        DeepFeatureFactorization(seeded(ConvNet), "layer4")(images(1, 3, 32, 32), 0)


def test_maps_agree_with_the_peer_on_what_is_where():
    """Concepts of the peer's NMF have ours as their nearest, each its own."""
    peer = pytest.importorskip(
        "pytorch_grad_cam.feature_factorization.deep_feature_factorization",
        reason="needs grad-cam (the test extra)",
    )
    model, x = seeded(ConvNet), images(1, 3, 64, 64)
    theirs, _, _ = peer.DeepFeatureFactorization(model, model.layer4, None, model.fc)(x, 2)
    ours, _, _ = DeepFeatureFactorization(model, model.layer4, None, model.fc)(x, 2)
    theirs = theirs / np.linalg.norm(theirs, axis=0)
    ours = ours / np.linalg.norm(ours, axis=0)
    similarity = np.abs(theirs.T @ ours)
    assert sorted(similarity.argmax(1)) == [0, 1]
