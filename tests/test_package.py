import subprocess
import sys
from importlib.metadata import version

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


def test_the_version_is_that_of_the_package():
    assert dff.__version__ == version("deep-feature-factorization")
