import shutil

import pytest

from tests.support.small_run import finished


@pytest.fixture
def run(tmp_path_factory, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished(tmp_path_factory).folder, tmp_path / "run")
