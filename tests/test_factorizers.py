"""Other factorizers in the place of NMF: by name, as estimators, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import sklearn.decomposition
import torch
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import dff
from dff.cli import main
from dff.colocalization.stages.network import Network
from dff.concepts import FACTORIZERS, check_factorizer, factorize
from dff.errors import BankError, FactorizationError, UsageError
from dff.nmf import OffsetNMF, as_factorizer
from tests.test_cli import FACTORY
from tests.toys import ConvNet, TokenNet, images, seeded

PREP = dff.Preprocessing(size=32, mean=0.5, std=0.25, fixed=True)


def explainer(kind=ConvNet, **kwargs):
    return dff.Explainer(seeded(kind), preprocessing=PREP, **kwargs)


@pytest.mark.parametrize(
    "factorizer",
    [*FACTORIZERS, sklearn.decomposition.NMF(), KMeans(2, random_state=0), OffsetNMF(2)],
    ids=str,
)
def test_any_factorizer_finds_concepts_that_can_be_used_again(factorizer):
    ready = explainer(factorizer=factorizer)
    x = images(2, 3, 32, 32)
    result = ready(x, concepts=4)
    assert len(result.bank) == 4
    assert (result.bank.shares.diff() <= 0).all(), "largest share first"
    assert result.maps().shape[0] == 4
    assert min(photo.coefficients.min() for photo in result.photos) >= 0
    split = result.contributions(1)
    torch.testing.assert_close(split.values.sum(1) + split.rest + split.gap, split.logit)
    assert split.relative_gap < 1e-4
    again = ready(x, bank=result.bank)
    if "means" not in str(factorizer).lower():  # memberships of 0 and 1 are no least squares
        np.testing.assert_allclose(again.maps(), result.maps(), atol=0.05)


def test_the_estimator_of_the_user_is_not_changed():
    estimator = KMeans(2, random_state=0)
    before = dict(vars(estimator))
    explainer(factorizer=estimator)(images(1, 3, 32, 32), concepts=5)
    assert vars(estimator) == before


def test_a_given_nmf_finds_what_ours_finds():
    x = images(1, 3, 32, 32)
    ours, given = explainer()(x, concepts=3), explainer(factorizer=dff.NMF(9))(x, concepts=3)
    assert torch.equal(ours.bank.components, given.bank.components)
    assert torch.equal(ours.photos[0].coefficients, given.photos[0].coefficients)
    assert len(explainer(factorizer="nmf")(x, concepts=range(2, 4)).bank) in (2, 3)


def test_an_offset_is_kept_with_the_bank(tmp_path):
    ready = explainer(TokenNet, factorizer="offset-nmf")
    x = images(2, 3, 32, 32)
    result = ready(x, concepts=3)
    assert not result.bank.signed
    assert result.bank.offset.shape == (16,)
    assert (result.bank.offset < 0).any()
    kept = dff.ConceptBank.load(result.bank.save(tmp_path / "bank.safetensors"))
    assert torch.equal(kept.offset, result.bank.offset)
    later = ready(x, bank=kept)
    np.testing.assert_allclose(later.maps(), result.maps(), atol=0.02)
    check, plain = result.check(0), explainer(TokenNet)(x, concepts=3).check(0)
    assert check.agreement.correlation > plain.agreement.correlation - 0.2


def test_an_offset_of_other_channels_is_refused():
    bank, _ = factorize(images(60, 8), 2)
    with pytest.raises(BankError, match=r"components are \(2, 8\), but its offset is \(7,\)"):
        dataclasses.replace(bank, offset=torch.zeros(7))


def test_what_a_factorizer_cannot_do_is_said():
    x = images(1, 3, 32, 32)
    with pytest.raises(UsageError, match="no factorizer 'nfm'; did you mean 'nmf'"):
        explainer(factorizer="nfm")
    with pytest.raises(UsageError, match="no factorizer 'x'; choose from nmf, semi-nmf"):
        check_factorizer("x")
    with pytest.raises(UsageError, match=r"pass KMeans\(...\)"):
        explainer(factorizer=KMeans)
    with pytest.raises(UsageError, match=r"PCA gives negative coefficients.* use NMF"):
        explainer(factorizer=PCA())(x, concepts=3)
    with pytest.raises(FactorizationError, match="NMF refused the data"):
        explainer(TokenNet, factorizer=sklearn.decomposition.NMF())(x, concepts=3)
    with pytest.raises(UsageError, match="a sweep is by NMF"):
        explainer(factorizer="k-means").sweep(x)
    with pytest.raises(UsageError, match="a dataset is fitted by NMF"):
        Network(explainer(factorizer="k-means"))
    with pytest.raises(UsageError, match="fit, transform and inverse_transform"):
        as_factorizer(object())


def test_the_choice_by_sign():
    rows = images(60, 8)
    assert not factorize(rows, 2)[0].signed
    bank, coefficients = factorize(rows - 0.5, 2)
    assert bank.signed
    assert coefficients.min() >= 0
    np.testing.assert_allclose(bank.encode(rows - 0.5), coefficients, atol=0.02)


@pytest.mark.parametrize(("name", "least"), [("nmf", 0.0), ("semi-nmf", -1.0)])
def test_what_is_named_finds_what_the_sign_chooses(name, least):
    rows = torch.rand(300, 20, generator=torch.Generator().manual_seed(0)) + least / 2
    named = factorize(rows, 3, factorizer=check_factorizer(name))[0]
    torch.testing.assert_close(named.components, factorize(rows, 3)[0].components)


def test_the_command(tmp_path, capsys):
    (tmp_path / "tiny_model.py").write_text(FACTORY)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")

    def analyze(name, *words):
        with pytest.raises(SystemExit) as end:
            main(["analyze", str(tmp_path / "one.png"), "--size", "32", "--factorizer", name,
                  "--model", f"{tmp_path / 'tiny_model.py'}:build", "--concepts", "3",
                  "--out", str(tmp_path / "out"), "--json", *words])  # fmt: skip
        return end.value.code or 0

    shares = []
    for name in ("nmf", "k-means"):
        assert analyze(name) == 0
        concepts = json.loads(capsys.readouterr().out)["concepts"]
        shares.append([concept["share"] for concept in concepts])
    assert shares[0] != shares[1]
    assert analyze("nmf", "--bank", str(tmp_path / "out" / "bank.safetensors")) == 2
    assert "choose one of the two" in capsys.readouterr().err
    assert analyze("pca") == 2
    assert "no factorizer 'pca'" in capsys.readouterr().err
