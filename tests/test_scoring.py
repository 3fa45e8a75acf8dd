"""Contributions that add up, the rest of a model as a function, and Captum on concepts."""

import dataclasses

import captum.attr
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import dff
from dff.activations import Tail
from dff.errors import BankError, LayerError, ModelError, UsageError
from dff.explain import Explanation
from dff.scoring import ConceptModule, rebuild, split_logits
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched

PREP = dff.Preprocessing(size=32, mean=0.5, std=0.25, fixed=True)


class DeepHead(ConvNet):
    """A convolution and a hidden layer after ``layer4``: not linear."""

    def __init__(self):
        super().__init__()
        self.mixed = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
        self.hidden = nn.Sequential(nn.Linear(12, 16), nn.ReLU())
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.mixed(self.layer4(self.stem(x)))
        return self.fc(self.hidden(self.avgpool(x).flatten(1)))


def explained(kind=ConvNet, *, count=1, layer="layer4", concepts=4, **kwargs):
    """An explanation of random photos."""
    ready = dff.Explainer(seeded(kind), layer=layer, preprocessing=PREP, **kwargs)
    return ready(images(count, 3, 32, 32) * 4 - 2, concepts=concepts)


EXPLAINED = explained(DeepHead)


def coefficients(*shape, seed=3):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# contributions ---------------------------------------------------------------------------------


def test_a_linear_model_is_split_in_closed_form():
    w, slopes = coefficients(3, 2, 2), coefficients(12, 2, seed=4)
    found = split_logits(lambda x: x.flatten(1) @ slopes + 7, w, torch.eye(2))
    assert found.linear
    assert found.steps == 1
    expected = (w.flatten()[:, None] * slopes).reshape(3, 4, 2).sum(1).T
    torch.testing.assert_close(found.values, expected)
    torch.testing.assert_close(found.rest, torch.tensor([7.0, 7.0]))
    torch.testing.assert_close(found.maps.sum((2, 3)), found.values)
    assert found.gap.abs().max() < 1e-5


def test_integrated_gradients_of_a_quadratic_form_are_analytic():
    w, form = coefficients(3, 1, 1), coefficients(3, 3, seed=5)

    def forward(x):
        x = x.flatten(1)
        return torch.einsum("mi,ij,mj->m", x, form, x)[:, None] + 1

    found = split_logits(forward, w, torch.ones(1, 1))
    assert not found.linear
    v = w.flatten()
    torch.testing.assert_close(found.values[0], v * ((form + form.T) @ v) / 2)
    torch.testing.assert_close(found.rest, torch.ones(1))


def test_steps_are_added_where_the_function_bends():
    w = torch.ones(2, 1, 1)

    def forward(x):  # a kink at 3/4 of the line, where eight segments have an edge, and a jolt
        total = x.sum((1, 2, 3))
        return (torch.relu(total - 1.5) + torch.sigmoid(80 * (total - 0.61)))[:, None]

    with pytest.warns(RuntimeWarning, match=r"miss the logit by \d.*raise max_steps"):
        few = split_logits(forward, w, torch.ones(1, 1), max_steps=9)
    many = split_logits(forward, w, torch.ones(1, 1))
    assert few.relative_gap > 0.01
    assert many.relative_gap < 0.01
    assert 9 < many.steps < 64
    torch.testing.assert_close(many.values[0, 0], many.values[0, 1])
    strict = split_logits(forward, w, torch.ones(1, 1), tolerance=1e-4)
    assert strict.relative_gap < 1e-4
    assert strict.steps > many.steps


def test_a_function_that_ignores_the_concepts_has_nothing_to_share_out():
    found = split_logits(lambda x: torch.full((len(x), 1), 3.0), torch.ones(2, 1, 1), torch.eye(1))
    assert found.linear
    assert found.values.abs().max() == 0
    assert found.rest == found.logit == 3


@pytest.mark.parametrize(
    ("kind", "layer", "linear"),
    [
        (ConvNet, "layer4", True),
        (PixelNet, "body", True),
        (DeepHead, "layer4", False),
        (ConvNet, "stem", False),
        (TokenNet, "blocks.1", False),
        (TokenNet, "patch", False),
    ],
)
def test_contributions_add_up_to_the_models_own_logit(kind, layer, linear):
    result = explained(kind, layer=layer, concepts=3)
    with untouched(result.photos[0].tail.model):
        found = result.contributions([0, 2, 3])
    assert found.linear == linear
    assert found.targets == ("class 0", "class 2", "class 3")
    torch.testing.assert_close(found.logit, result.logits[0, [0, 2, 3]])
    torch.testing.assert_close(found.values.sum(1) + found.rest + found.gap, found.logit)
    assert found.relative_gap.max() < (1e-4 if linear else 1e-2)


def test_linear_contributions_equal_the_heads_own_arithmetic():
    result = explained()
    model = result.photos[0].tail.model
    found = result.contributions(range(5))
    pooled = result.photos[0].coefficients.mean((1, 2))
    expected = model.fc.weight.detach() @ (result.bank.components * pooled[:, None]).T
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-5)


def test_a_difference_of_two_classes_is_split():
    result = explained(class_names=list("abcde"))
    both, difference = result.contributions(["b", "d"]), result.contributions("b", versus="d")
    assert difference.targets == ("b - d",)
    torch.testing.assert_close(difference.values[0], both.values[0] - both.values[1])
    torch.testing.assert_close(difference.rest[0], both.rest[0] - both.rest[1])


def test_each_photo_has_contributions_of_its_own():
    result = explained(count=3, concepts=3)
    for index in range(3):
        found = result[index].contributions(1)
        torch.testing.assert_close(found.logit, result.logits[index, 1:2])
    default = result[2].contributions()
    assert default.targets == (f"class {result.logits[2].argmax()}",)


def test_contributions_without_grad_cam_and_without_gradients():
    ready = dff.Explainer(seeded(DeepHead), layer="layer4", preprocessing=PREP)
    x = images(1, 3, 32, 32)
    expected = ready(x, concepts=3).contributions(1)
    found = ready(x, concepts=3, cam=False).contributions(1)
    torch.testing.assert_close(found.values, expected.values)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            result = ready(images(1, 3, 32, 32), concepts=3)
            found = result.contributions(1)
            assert result.cam().max() == 1
        torch.testing.assert_close(found.values, expected.values)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.05, 20), min_size=4, max_size=4))
def test_contributions_do_not_depend_on_the_scale_of_the_factorization(factors):
    result = EXPLAINED
    by = torch.tensor(factors)
    bank = dataclasses.replace(
        result.bank,
        components=result.bank.components * by[:, None],
        scale=result.bank.scale / by,
    )
    photo = dataclasses.replace(
        result.photos[0],
        shared=dataclasses.replace(result.shared, bank=bank),
        coefficients=result.photos[0].coefficients / by[:, None, None],
    )
    scaled = Explanation((photo,))
    ours, theirs = result.contributions(2), scaled.contributions(2)
    torch.testing.assert_close(theirs.values, ours.values, rtol=1e-3, atol=1e-4)


def test_wrong_arguments_of_contributions():
    with pytest.raises(UsageError, match=r"expected W \(k, rows, cols\), got \(1, 2, 3, 4\)"):
        split_logits(lambda x: x, torch.ones(1, 2, 3, 4), torch.eye(1))
    with pytest.raises(UsageError, match="0 < tolerance < 1"):
        split_logits(lambda x: x, torch.ones(2, 3, 4), torch.eye(1), tolerance=0)
    with pytest.raises(UsageError, match="class 9 does not exist"):
        explained().contributions(9)


# the rest of the model -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "layer"),
    [(ConvNet, "layer4"), (ConvNet, "stem"), (TokenNet, "patch"), (TokenNet, "blocks.1")],
)
def test_the_tail_of_the_models_own_maps_gives_its_own_logits(kind, layer):
    from dff.activations import intercept

    model, x = seeded(kind), images(3, 3, 32, 32)
    kept = []
    logits = intercept(model, layer, kept.append, x)
    tail = Tail(model, layer, x, batch=2)
    with untouched(model):
        for item in range(3):
            maps = kept[0][item].expand(3, -1, -1, -1)
            torch.testing.assert_close(tail(maps, item), logits[item].expand(3, -1))


def test_what_goes_around_the_layer_comes_from_the_image():
    class Around(ConvNet):
        def forward(self, x):
            x = self.stem(x)
            return self.fc((self.layer4(x) + self.layer4[0](x)).mean((2, 3)))

    class Beside(ConvNet):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(20, 5)

        def forward(self, x):
            x = self.stem(x)
            return self.fc(torch.cat([self.layer4(x).mean((2, 3)), x.mean((2, 3))], 1))

    for kind, layer in ((Around, "layer4.2"), (Beside, "layer4")):
        model, x = seeded(kind), images(2, 3, 32, 32)
        tail = Tail(model, layer, x)
        maps = model.layer4(model.stem(x)).detach()
        for item in (0, 1):
            torch.testing.assert_close(
                tail(maps[item].expand(4, -1, -1, -1), item), model(x)[item].detach().expand(4, -1)
            )


def test_a_model_that_fails_on_maps_is_named_as_the_cause():
    model = seeded(ConvNet)
    with pytest.raises(ModelError, match="the model failed on an input of shape"):
        Tail(model, "layer4", images(1, 3, 32, 32))(torch.zeros(2, 3, 8, 8))


# the module ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deep():
    """An explanation of a model with a deep head, its module, and its coefficients."""
    result = explained(DeepHead)
    return result, result.concept_module(), result.photos[0].coefficients[None]


def test_the_module_gives_the_models_own_logits(deep):
    result, module, w = deep
    torch.testing.assert_close(module(w), result.logits)
    assert not module(w).requires_grad
    assert module(w.clone().requires_grad_()).requires_grad
    kinds = [type(one).__name__ for one in module.after]
    assert kinds == ["Conv2d", "ReLU", "AdaptiveAvgPool2d", "Linear", "ReLU", "Linear"]


def test_integrated_gradients_of_captum_equal_ours(deep):
    result, module, w = deep
    ours = result.contributions(2, tolerance=1e-4)
    theirs = captum.attr.IntegratedGradients(module).attribute(w, target=2, n_steps=400)
    torch.testing.assert_close(theirs[0].sum((1, 2)).float(), ours.values[0], rtol=2e-2, atol=2e-3)


def concepts_apart(w):
    return torch.arange(w.shape[1])[None, :, None, None]


def test_feature_ablation_and_shapley_values_of_captum(deep):
    _, module, w = deep
    whole, none = module(w)[0, 2], module(torch.zeros_like(w))[0, 2]
    ablated = captum.attr.FeatureAblation(module).attribute(
        w, target=2, feature_mask=concepts_apart(w)
    )[0, :, 0, 0]
    for k in range(w.shape[1]):
        without = w.clone()
        without[:, k] = 0
        torch.testing.assert_close(ablated[k], whole - module(without)[0, 2])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shapley = captum.attr.ShapleyValueSampling(module).attribute(
            w, target=2, feature_mask=concepts_apart(w), n_samples=4
        )
    torch.testing.assert_close(shapley[0, :, 0, 0].sum(), whole - none)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_deep_lift_and_noise_tunnel_of_captum(deep):
    _, module, w = deep
    with untouched(module.tail.model):
        lifted, delta = captum.attr.DeepLift(module).attribute(
            w, target=2, return_convergence_delta=True
        )
    assert delta.abs() < 1e-4, "the rules for the ReLUs after the layer were applied"
    assert lifted.shape == w.shape
    with torch.random.fork_rng():
        torch.manual_seed(0)
        smooth = captum.attr.NoiseTunnel(captum.attr.IntegratedGradients(module)).attribute(
            w, target=2, nt_samples=4, stdevs=1e-6
        )
    plain = captum.attr.IntegratedGradients(module).attribute(w, target=2)
    torch.testing.assert_close(smooth, plain, rtol=1e-2, atol=1e-3)


def test_the_module_of_tokens_and_of_a_bank():
    result = explained(TokenNet, layer="blocks.1", concepts=3)
    module = result.concept_module()
    torch.testing.assert_close(module(result.photos[0].coefficients[None]), result.logits)
    tail = result.photos[0].tail
    alone = ConceptModule(tail, result.bank)
    w = result.photos[0].coefficients[None]
    torch.testing.assert_close(alone(w), tail(rebuild(w, result.bank.components)))
    with pytest.raises(UsageError, match=r"expected coefficients \(m, 3, rows, cols\)"):
        alone(torch.zeros(1, 4, 4, 4))
    other = Tail(tail.model, "blocks.0", tail.inputs)
    with pytest.raises(BankError, match=r"layer 'blocks.1' .*not for layer 'blocks.0'"):
        ConceptModule(other, result.bank)


# scores ----------------------------------------------------------------------------------------


def test_scores_are_refused_where_the_grid_has_no_say(tmp_path):
    ready = dff.Explainer(seeded(TokenNet), layer="blocks.2", preprocessing=PREP)
    result = ready(images(1, 3, 32, 32), concepts=3)
    assert result.maps().shape == (3, 4, 4)
    assert result.top_classes(0) == []
    for wanted in (lambda: result.scores, result.contributions, result.cam, result.concept_module):
        with pytest.raises(LayerError, match=r"'blocks.2' has no say .* choose an earlier layer"):
            wanted()
    assert result.overlay().size
    assert result.panel().size
    assert result.save(tmp_path)
    assert "has no say" in result.as_dict()["unscored"]
    assert dff.Explainer(seeded(TokenNet), preprocessing=PREP).unscored is None


class Embedder(ConvNet):
    """Not a classifier: a dataclass-like dict of features and an embedding."""

    def forward(self, x):
        x = self.layer4(self.stem(x))
        return {"features": x, "embedding": self.fc(x.mean((2, 3)))}


def test_a_model_that_is_no_classifier_is_scored_by_a_callable():
    texts = coefficients(3, 5, seed=9)

    def similarity(output):
        return torch.cosine_similarity(output["embedding"][:, None], texts[None], dim=2)

    ready = dff.Explainer(
        seeded(Embedder), preprocessing=PREP, score=similarity, class_names=list("xyz")
    )
    x = images(2, 3, 32, 32)
    result = ready(x, concepts=3)
    torch.testing.assert_close(result.logits, similarity(ready.model(x)).detach())
    assert result.scores.shape == (3, 3)
    found = result.contributions("y")
    assert not found.linear
    assert found.relative_gap < 0.01
    assert result.cam("z").shape == (32, 32)
    plain = dff.Explainer(seeded(Embedder), preprocessing=PREP)(x, concepts=3)
    expected = ready.model(x)["features"].mean((2, 3)).detach()
    torch.testing.assert_close(plain.logits, expected)
    with pytest.raises(LayerError, match=r"score must return a tensor \(images, classes\), got"):
        dff.Explainer(seeded(Embedder), preprocessing=PREP, score=lambda out: out["features"])
