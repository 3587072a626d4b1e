"""Where the installed packages depart from constraints.txt, the versions that tif was tested with.

packaging is imported inside functions: what answers at once does without it.
"""

import functools
from collections.abc import Iterable, Mapping
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from packaging.requirements import Requirement

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"  # in a checkout a link to its root
PACKAGE = "tif-unlearning"
EXTRAS = ("lm-eval", "completion")  # what a run may need; not what tests and pages are made with
SHOWN = 5  # departures in a run's line; env.json has all

Departures = dict[str, dict[str, str]]  # package -> {"installed": version, "tested": version}


@functools.cache
def read_departures() -> Departures:
    """Return where the packages that tif needs depart from its constraints.txt."""
    if not CONSTRAINTS.is_file():
        return {}
    text = CONSTRAINTS.read_text(encoding="utf-8")
    return find_departures(parse_constraints(text), list_installed(PACKAGE, EXTRAS))


def find_departures(tested: Mapping[str, str], installed: Mapping[str, str]) -> Departures:
    """Return the packages that stand in both with another version.

    A local part is no other version: 2.13.0+cpu is 2.13.0.
    """
    return {
        name: {"installed": version, "tested": tested[name]}
        for name, version in sorted(installed.items())
        if name in tested and _public(version) != _public(tested[name])
    }


def describe_departures(departures: Departures, constraints: Path = CONSTRAINTS) -> str:
    """Return a run's line about versions that were not tested; "" where all were."""
    if not departures:
        return ""
    pairs = list(departures.items())[:SHOWN]
    words = [f"{name} {pair['installed']} (tested: {pair['tested']})" for name, pair in pairs]
    if len(departures) > SHOWN:
        words.append(f"{len(departures) - SHOWN} more in env.json")
    path = constraints.resolve()
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    next_step = f"pip install -c {path} gets the tested ones"
    return f"versions that were not tested: {', '.join(words)}; {next_step}"


def parse_constraints(text: str) -> dict[str, str]:
    """Return package -> version of the lines that hold for this Python and platform."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    tested = {}
    for requirement in _parse_requirements(lines):
        for specifier in requirement.specifier:
            if specifier.operator == "==":
                tested[_canonical_name(requirement)] = specifier.version
    return tested


def list_installed(package: str, extras: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the version of each installed package that one needs, directly or through others."""
    packages = {package: _read_metadata(package)}
    visited, to_visit = set(), [(package, extra) for extra in ("", *extras)]
    while to_visit:
        name, extra = to_visit.pop()
        if (name, extra) in visited:
            continue
        visited.add((name, extra))
        if name not in packages:
            packages[name] = _read_metadata(name)
        for requirement in _parse_requirements(packages[name].requirements, extra):
            needed = _canonical_name(requirement)
            to_visit += [(needed, needed_extra) for needed_extra in ("", *requirement.extras)]
    del packages[package]
    return {name: package.version for name, package in packages.items() if package.version}


class _Metadata(NamedTuple):
    version: str  # "" = not installed
    requirements: list[str]


def _read_metadata(name: str) -> _Metadata:
    """Return what an installed package says of itself.

    metadata.version and metadata.requires would each parse its whole description too.
    """
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return _Metadata("", [])
    # In a checkout that was installed with -e, what setuptools left there comes first: PKG-INFO.
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    header = HeaderParser().parsestr(text.partition("\n\n")[0])
    return _Metadata(header["Version"] or "", header.get_all("Requires-Dist") or [])


def _parse_requirements(lines: Iterable[str], extra: str = "") -> list["Requirement"]:
    """Return those that hold here with an extra ("" = none), without lines that are none."""
    from packaging.requirements import InvalidRequirement, Requirement

    requirements = []
    for line in lines:
        if not line or ("extra ==" in line and not extra):
            continue  # most lines: to parse them takes longer than all else
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # of an old package: no reason to stop a run
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            requirements.append(requirement)
    return requirements


def _canonical_name(requirement: "Requirement") -> str:
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(requirement.name))


def _public(version: str) -> str:
    """Return a version without its local part, written as PEP 440 does."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version).public
    except InvalidVersion:
        return version
