import subprocess
import sys

import pytest

import dff


@pytest.mark.parametrize("name", dff.__all__)
def test_every_public_name_is_there(name):
    assert getattr(dff, name) is not None
    assert name in dir(dff)


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dff.nothing


def test_importing_costs_nothing():
    code = "import dff, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
