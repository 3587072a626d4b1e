import pytest


def pytest_generate_tests(metafunc):
    """Give `count`: some cases by default, all of them as slow."""
    if "count" in metafunc.fixturenames:
        some, every = metafunc.function.cases
        metafunc.parametrize("count", [some, pytest.param(every, marks=pytest.mark.slow)])
