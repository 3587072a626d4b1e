"""Put the commit into what is built: an installed package names it in env.json of its runs."""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

FILE = "tif/commit.txt"  # read by tif/utils/environment.py


def write_commit(folder):
    """Write the checkout's commit below a folder; nothing where this is no checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--match=-"]
    here = Path(__file__).parent
    if not (here / ".git").exists():  # a source archive, which has the file already
        return
    described = subprocess.run(command, cwd=here, capture_output=True, text=True)
    if described.returncode == 0:
        (Path(folder) / FILE).write_text(described.stdout)


class BuildWithCommit(build_py):
    """Builds the package; an editable install asks git instead."""

    def run(self):
        """Build, then write the commit."""
        super().run()
        if not self.editable_mode:
            write_commit(self.build_lib)


class ArchiveWithCommit(sdist):
    """Makes the source archive, from which `python -m build` makes the wheel."""

    def make_release_tree(self, base_dir, files):
        """Make the archive's folder, then write the commit."""
        super().make_release_tree(base_dir, files)
        write_commit(base_dir)


setup(cmdclass={"build_py": BuildWithCommit, "sdist": ArchiveWithCommit})
