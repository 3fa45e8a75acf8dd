"""Unions of concepts: from parts to objects."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from dff.concepts import Branch, ConceptBank, factorize, select, sweep_banks
from dff.concepts.unions import unions
from dff.errors import BankError, UsageError
from dff.rendering import colors


def rows_of_two_objects(signed: bool) -> tuple[torch.Tensor, np.ndarray]:
    """Cells of two objects of two parts each, which share a direction, and a background."""
    random = np.random.default_rng(0)
    parts = np.zeros((5, 40))
    for part, first in enumerate((0, 4, 18, 22, 34)):
        parts[part, first : first + (10 if part < 4 else 6)] = 1
    if signed:
        parts = parts * random.choice([-1, 1], size=40)
    kind = random.integers(5, size=600)
    cells = parts[kind] * random.uniform(0.8, 1.2, size=(600, 1))
    return torch.from_numpy(
        cells + (0 if signed else 0.01) * np.abs(random.normal(size=cells.shape))
    ).float(), kind


@pytest.mark.parametrize("signed", [False, True])
def test_the_parts_of_an_object_come_together_first(signed):
    rows, kind = rows_of_two_objects(signed)
    bank, coefficients = factorize(rows, 5)
    strongest = coefficients.argmax(1).numpy()
    of_kind = [np.bincount(strongest[kind == i]).argmax() for i in range(5)]
    assert sorted(of_kind) == list(range(5)), "each kind has a concept of its own"
    first = {tuple(sorted(of_kind[:2])), tuple(sorted(of_kind[2:4]))}
    assert set(bank.unions[:2]) == first


def test_there_are_at_most_k_minus_two_unions_of_several_and_none_without_likeness():
    random = torch.Generator().manual_seed(0)
    w = torch.rand(100, 6, generator=random)
    h = torch.rand(6, 20, generator=random)
    assert len([union for union in unions(w, h) if len(union) > 1]) <= 4
    assert all(len(union) < 6 for union in unions(w, h))
    apart = torch.eye(3).repeat(10, 1)
    alone = ((0,), (1,), (2,))
    assert unions(apart, torch.eye(3)) == alone, "what shares no cell and no channel stays apart"


def test_of_two_concepts_each_is_an_object_and_one_alone_is_none():
    assert unions(torch.rand(10, 1), torch.rand(1, 4)) == ()
    rows, _ = rows_of_two_objects(signed=False)
    bank, _ = factorize(rows, 2)
    assert bank.unions == ((0,), (1,))
    names = ("Concept 1", "Concept 2", "Concept 1 (object)", "Concept 2 (object)")
    assert bank.node_names() == names


def test_concepts_that_are_everywhere_alike_make_no_objects():
    bank, coefficients = factorize(torch.rand(1, 8).expand(20, 8).contiguous(), 2)
    assert bank.unions == ()
    assert torch.isfinite(bank.presence(coefficients.T.reshape(2, 4, 5), level="object")).all()


def test_a_union_is_as_present_as_its_members_and_as_what_looks_alike():
    rows, _ = rows_of_two_objects(signed=False)
    bank, coefficients = factorize(rows, 5)
    maps = coefficients.T.reshape(5, 20, 30)
    present = bank.presence(maps, level="object")
    assert present.shape == (len(bank.nodes()), 20, 30)
    assert torch.equal(present[:5], bank.presence(maps))
    union = bank.unions[0]
    members = (maps[list(union)].sum(0) / bank.union_scale[0]).clamp(0, 1)
    # W·H and the sums of the members' coefficients, both beyond the average cell:
    reconstruction = (coefficients @ bank.components).double()
    sums = coefficients[:, list(union)].sum(1).double()
    beyond = reconstruction - reconstruction.mean(0)
    alike = beyond @ (beyond.T @ (sums - sums.mean()))
    alike = (alike / torch.quantile(alike[alike > 0], 0.99)).clamp(0, 1).float().reshape(20, 30)
    torch.testing.assert_close(present[5], (members + alike) / 2, atol=2e-4, rtol=0)
    above = bank.presence(maps, level="object", most=9)
    torch.testing.assert_close(above.clamp(0, 1)[:5], present[:5])
    before = replace(bank, union_likeness=None)  # a bank of before
    torch.testing.assert_close(before.presence(maps, level="object")[5], members)
    assert bank.node_names()[5] == " + ".join(bank.names[k] for k in union)


@pytest.mark.parametrize("power", [-60, 60])
def test_unions_do_not_depend_on_the_size_of_activations(power):
    rows, _ = rows_of_two_objects(signed=True)
    (plain, some), (scaled, same) = (factorize(a, 4) for a in (rows, rows * 2.0**power))
    assert scaled.unions == plain.unions
    maps, others = (
        bank.presence(w.T.reshape(4, 20, 30), level="object")
        for bank, w in ((plain, some), (scaled, same))
    )
    torch.testing.assert_close(others, maps, atol=0.01, rtol=0)


def test_unions_are_kept_with_the_bank(tmp_path):
    bank, _ = factorize(rows_of_two_objects(signed=False)[0], 5)
    again = ConceptBank.load(bank.save(tmp_path / "bank.safetensors"))
    assert again.unions == bank.unions
    assert torch.equal(again.union_scale, bank.union_scale)
    assert torch.equal(again.union_likeness, bank.union_likeness)
    assert again.renamed({0: "head"}).unions == bank.unions
    assert again.merged([0, 1]).unions == (), "others are left of four concepts"


@pytest.mark.parametrize("union", [(), (0, 0), (0, 5), (-1, 2), (0, 1, 2, 3, 4)])
def test_a_bank_refuses_unions_that_cannot_be(union):
    bank, _ = factorize(rows_of_two_objects(signed=False)[0], 5)
    with pytest.raises(BankError, match="a union is of 1 to 4"):
        ConceptBank(
            bank.components, bank.scale, bank.shares, bank.rest, "", "",
            unions=(union,), union_scale=torch.ones(1),
        )  # fmt: skip
    with pytest.raises(BankError, match="full presences"):
        ConceptBank(bank.components, bank.scale, bank.shares, bank.rest, "", "", unions=((0, 1),))
    with pytest.raises(BankError, match="a likeness of"):
        replace(bank, union_likeness=torch.ones(1, 5))


def test_there_is_no_other_level():
    bank, _ = factorize(rows_of_two_objects(signed=False)[0], 5)
    with pytest.raises(UsageError, match="object, part"):
        bank.nodes("scene")


def test_concepts_that_stay_keep_their_colours_whatever_k_is():
    rows, kind = rows_of_two_objects(signed=False)
    selection = select(rows, range(2, 6))
    banks, coefficients = sweep_banks(selection, rows)
    for fewer, more in pairwise(banks):
        assert len(set(more.rgb)) == len(more)
        assert set(fewer.rgb) <= set(more.rgb), "no colour goes"
    ground = [w[kind == 4].mean(0).argmax() for w in coefficients[1:]]
    assert len({bank.rgb[k] for bank, k in zip(banks[1:], ground, strict=True)}) == 1
    moved = Branch(np.array([[0.1, 0.9], [0.2, 0.3], [0.8, 0.1]]), (1, 1, 0))
    red, green, third = (9, 0, 0), (0, 9, 0), tuple(map(int, colors(1)[0]))
    assert moved.inherited((red, green)) == (green, third, red)
