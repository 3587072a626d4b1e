"""Where installed packages depart from the versions that tif was tested with."""

import pathlib
import re
import sys

import pytest

from tif.utils import tested_versions as versions

ROOT = pathlib.Path(versions.__file__).parents[2]


def install(folder, name, version, *requirements):
    """Write what pip leaves of a package: its metadata."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir()
    lines = [f"Requires-Dist: {requirement}" for requirement in requirements]
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]
    text = "\n".join([*head, "", "A description.", "", "Requires-Dist: prose-of-the-description"])
    (place / "METADATA").write_text(text + "\n")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of packages that are importable; no other is."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def test_lines_of_other_pythons_and_platforms_do_not_count():
    text = (
        "# made by hand\n"
        "plain==1.0\n"
        "\n"
        "Some_Name==2.0  # via plain\n"
        "split==3.0 ; python_full_version < '3.11'\n"
        "split==4.0 ; python_full_version >= '3.11'\n"
        "windows==5.0 ; sys_platform == 'win32'\n"
        "a range>=1\n"
        "ranged>=1\n"
    )
    assert versions.parse_constraints(text) == {"plain": "1.0", "some-name": "2.0", "split": "4.0"}


def test_a_departure_is_another_version_of_a_package_that_stands_in_both():
    tested = {"torch": "2.13.0", "transformers": "5.25.0", "peft": "0.21.2", "missing": "1"}
    installed = {"torch": "2.13.0+cu128", "transformers": "5.26.0", "peft": "0.21.2", "new": "2"}
    assert versions.find_departures(tested, installed) == {
        "transformers": {"installed": "5.26.0", "tested": "5.25.0"}
    }


def test_two_spellings_of_a_version_are_the_same_and_a_post_release_is_another():
    assert versions.find_departures({"a": "1.0.post1"}, {"a": "1.0-1+local"}) == {}
    assert versions.find_departures({"a": "1.0"}, {"a": "1.0.post1"}) != {}
    assert versions.find_departures({"a": "1.0"}, {"a": "of my own"}) == {
        "a": {"installed": "of my own", "tested": "1.0"}
    }


def test_packages_of_packages_and_of_extras_are_listed_and_others_are_not(packages):
    install(
        packages, "tif-unlearning", "0.1", "direct>=1", 'of_extra; extra == "lm-eval"',
        'of-tests; extra == "test"', 'windows; sys_platform == "win32"',
    )  # fmt: skip
    install(packages, "direct", "1.5", "Through.Others[more]", "tif-unlearning")
    install(packages, "through-others", "2.5", 'more-yet; extra == "more"', "not-installed")
    for name in ("more-yet", "of-extra", "of-tests", "windows", "unrelated"):
        install(packages, name, "3")
    install(packages, "prose-of-the-description", "4")
    assert versions.list_installed("tif-unlearning", ("lm-eval",)) == {
        "direct": "1.5", "through-others": "2.5", "more-yet": "3", "of-extra": "3",
    }  # fmt: skip


def test_a_package_with_a_requirement_that_nobody_can_read_stops_nothing(packages):
    install(packages, "tif-unlearning", "0.1", "old (>=1", "good")
    install(packages, "good", "1")
    assert versions.list_installed("tif-unlearning") == {"good": "1"}


def test_requirements_of_a_checkout_are_read_as_setuptools_leaves_them(packages):
    install(packages, "tif-unlearning", "0.1", "direct")
    install(packages, "direct", "1")
    folder = packages / "tif_unlearning.egg-info"
    (packages / "tif_unlearning-0.1.dist-info").rename(folder)
    (folder / "METADATA").rename(folder / "PKG-INFO")
    assert versions.list_installed("tif-unlearning") == {"direct": "1"}


def test_where_tif_is_not_installed_nothing_is_listed(packages):
    assert versions.list_installed("tif-unlearning") == {}


def test_the_line_names_five_departures_and_the_file_of_the_tested_versions(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pair = {"installed": "5.26.0", "tested": "5.25.0"}
    assert versions.describe_departures({}) == ""
    assert versions.describe_departures({"transformers": pair}, tmp_path / "constraints.txt") == (
        "versions that were not tested: transformers 5.26.0 (tested: 5.25.0); "
        "pip install -c constraints.txt gets the tested ones"
    )
    several = {f"package{number}": pair for number in range(7)}
    line = versions.describe_departures(several, pathlib.Path("/elsewhere/constraints.txt"))
    assert line.count("(tested: 5.25.0)") == 5
    assert "package4 5.26.0 (tested: 5.25.0), 2 more in env.json; " in line
    assert "pip install -c /elsewhere/constraints.txt gets" in line


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs the checkout")
def test_each_requirement_of_tif_has_a_tested_version_within_its_range():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    tested = versions.parse_constraints((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    lines = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    requirements = [Requirement(line) for line in [*lines, *settings["build-system"]["requires"]]]
    wrong = [
        str(requirement)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
        if tested.get(canonicalize_name(requirement.name), "0") not in requirement.specifier
    ]
    assert len(requirements) > 30
    assert wrong == []


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs the checkout")
def test_constraints_are_public_versions_and_name_no_host_and_no_path():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert versions.CONSTRAINTS.read_text(encoding="utf-8") == text
    head, *lines = text.splitlines()
    assert head.startswith("# .ci/lock writes this file")
    pin = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [a-z0-9_ ()<>=!'.]+)?", re.IGNORECASE)
    assert [line for line in lines if not pin.fullmatch(line)] == []
