import pytest


def pytest_generate_tests(metafunc):
    """Give `count`: some cases by default, all of them as slow."""
    if "count" in metafunc.fixturenames:
        default_count, slow_count = metafunc.function.cases
        metafunc.parametrize(
            "count", [default_count, pytest.param(slow_count, marks=pytest.mark.slow)]
        )
