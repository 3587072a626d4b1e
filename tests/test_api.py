"""The names that `import tif` offers to notebooks."""

import inspect
import subprocess
import sys

import pytest

import tif
from tests.support.hangs import HANG


@pytest.mark.parametrize("name", tif.API)
def test_a_name_of_the_api_is_there_and_documented(name):
    assert inspect.getdoc(tif.__getattr__(name))
    assert name in tif.__all__
    assert name in dir(tif)


def test_there_is_no_other_name():
    assert sorted(tif.API) == sorted(tif.__all__)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(AttributeError, match="load_config"):
        tif.load_configuration  # noqa: B018


def test_importing_loads_no_torch_and_naming_a_function_no_transformers():
    script = (
        "import sys, tif\n"
        "assert not {'torch', 'omegaconf', 'rich'} & set(sys.modules)\n"
        "assert callable(tif.unlearn) and callable(tif.evaluate) and callable(tif.identify)\n"
        "heavy = {'transformers', 'lightning', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from tif import *\n"
        "assert callable(evaluate)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=HANG).returncode == 0
