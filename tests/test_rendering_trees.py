import numpy as np
import pytest

from dff.errors import UsageError
from dff.rendering import TreeNode, concept_tree, curves


def node(color, parent=None, overlap=1.0, shape=(40, 60)):
    return TreeNode(np.full((*shape, 3), 120, np.uint8), color, "Concept", parent, overlap)


def test_a_tree_frames_its_thumbnails_and_draws_lines():
    levels = [
        ("k = 1", [node((255, 0, 0))]),
        ("k = 2", [node((0, 255, 0), 0, 1.0), node((0, 0, 255), 0, 0.2, (60, 20))]),
    ]
    drawn = np.asarray(concept_tree(levels, tile=48))
    for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (120, 120, 120)):
        assert (drawn == color).all(2).sum() > 100
    lone = np.asarray(concept_tree(levels[:1], tile=48))
    assert lone.shape[0] < drawn.shape[0]
    green = np.argwhere((drawn == (0, 255, 0)).all(2))[:, 1].mean()
    blue = np.argwhere((drawn == (0, 0, 255)).all(2))[:, 1].mean()
    assert green < blue


def test_children_stand_below_their_parents():
    levels = [
        ("k = 2", [node((255, 0, 0)), node((0, 255, 0))]),
        ("k = 3", [node((9, 9, 9), 1), node((0, 0, 255), 0), node((255, 255, 0), 1)]),
    ]
    drawn = np.asarray(concept_tree(levels, tile=48))
    at = {c: np.argwhere((drawn == c).all(2))[:, 1].mean() for c in ((0, 0, 255), (9, 9, 9))}
    assert at[(0, 0, 255)] < at[(9, 9, 9)]


def test_trees_that_cannot_be():
    with pytest.raises(UsageError, match="at least one level"):
        concept_tree([])
    with pytest.raises(UsageError, match="parent that does not exist"):
        concept_tree([("a", [node((1, 1, 1))]), ("b", [node((1, 1, 1), 3)])])


def test_curves_are_drawn_at_the_size_asked_for():
    drawn = curves(
        [2, 3, 4], {"explained": [0.2, 0.5, 0.6], "stability": [1, np.nan, 0.4]},
        xlabel="concepts", mark=3, mark_label="chosen", width=500, height=300,
    )  # fmt: skip
    assert drawn.size == (500, 300)
    assert len(np.unique(np.asarray(drawn))) > 10
    with pytest.raises(UsageError, match="3 values each"):
        curves([1, 2, 3], {"a": [1]}, xlabel="x")


def test_curves_leave_matplotlibs_settings_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    curves([1, 2], {"a": [0, 1]}, xlabel="x")
    assert dict(mpl.rcParams) == before
