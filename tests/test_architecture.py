"""docs/architecture.md says what is there, and the tree is as it promises."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted([*(ROOT / "dff").rglob("*.py"), *(ROOT / "gradcam").rglob("*.py")])
LONGEST, MOST_FILES, MOST_PARAMETERS = 330, 12, 9


def rooms() -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/architecture.md").read_text(), re.M))


def test_every_room_has_its_line():
    there = {
        f"dff/{path.name}"
        for path in (ROOT / "dff").iterdir()
        if (path.is_dir() and (path / "__init__.py").exists())
        or (path.suffix == ".py" and not path.name.startswith("__"))
    }
    assert rooms() == {*there, "gradcam"}


def test_what_the_walks_name_is_there():
    text = (ROOT / "docs/architecture.md").read_text()
    walks = text[text.index("## A photo through `dff analyze`") :]
    for name in re.findall(r"`(?:dff\.)?((?:sources|stages|run)\.\w+)", walks):
        path = ROOT / "dff/colocalization" / name.replace(".", "/")
        source = (path.parent / "__init__.py").read_text()
        assert path.with_suffix(".py").exists() or path.name in source, name


def test_folders_can_be_taken_in_at_a_glance():
    for folder in {path.parent for path in MODULES}:
        names = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(names) <= MOST_FILES, folder


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_can_be_read_in_a_sitting(path):
    """No module is long, and no function but the command line's takes many parameters."""
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and "cli" not in path.parts:
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = [a.arg for a in arguments if a.arg not in ("self", "cls")]
            assert len(names) <= MOST_PARAMETERS, node.name
