"""The names that `import tif` offers to notebooks."""

import inspect

import pytest

import tif


@pytest.mark.parametrize("name", tif.API)
def test_a_name_of_the_api_is_there_and_documented(name):
    assert inspect.getdoc(getattr(tif, name))


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(AttributeError, match="load_config"):
        tif.load_configuration  # noqa: B018
