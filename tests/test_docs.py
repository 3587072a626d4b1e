"""The documentation says what is true: rooms, files, links, commands, generated parts.

`mkdocs build --strict` checks the rest.
"""

import ast
import importlib.util
import pathlib
import re
import shlex

import pytest

from lab.metric_trust.settings import MetricTrust
from lab.speed.settings import SpeedSettings
from tif.audit.keys import make_settings
from tif.bench.settings import BenchSettings
from tif.config import load as config
from tif.config import presets
from tif.config.command_keys import Evaluate
from tif.config.keys import list_keys
from tif.config.registry import entries
from tif.config.schema import Config, Model
from tif.identify import Identify
from tif.losses import FORGET, RETAIN
from tif.metrics.registry import metric_cards
from tif.sweep.sweep_file import SweepFile

ROOT = pathlib.Path(config.__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(
    r"(?:-m tif\.|slurm/|(?:^|[ /])tif |-m lab\.)"
    r"(fit|identify|evaluate|report|sweep|bench|chat|audit|download|ls|speed|metric_trust)"
    r"(?:\.sbatch)?(?= |$)"
)
SCHEMAS = {
    "identify": Identify, "evaluate": Evaluate, "bench": BenchSettings, "speed": SpeedSettings,
    "metric_trust": MetricTrust,
}  # fmt: skip

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs the checkout")


def section(page, title):
    """Return the lines of a page between a heading and the next heading of the same level."""
    level = title.split(" ")[0]
    text = page.read_text(encoding="utf-8")
    return text.split(f"\n{title}\n")[1].split(f"\n{level} ")[0].splitlines()


def cells(lines):
    """Return the rows of a table, without its head, as lists of cells."""
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


def commands_of(page):
    """Return the calls of tif's commands in the page's blocks of shell code, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines = [" ".join(line.split(" #")[0].split()) for line in lines]
    return [line for line in lines if COMMAND.search(line)]


def words_of(line):
    """Return the command's name and its words, without options and the reader's own files."""
    match = COMMAND.search(line)
    optional = re.sub(r" \[[^\]]*\]", "", line[match.end() :])  # [key=value ...]
    words = [word for word in shlex.split(optional.replace(" ...", "")) if not word.startswith("-")]
    return match[1], [word for word in words if not config.is_file(word) or is_known_file(word)]


def is_known_file(word):
    return any((folder / word).is_file() for folder in (ROOT, config.own_configs()))


def problems_of(command, words, complete):
    """Return what is wrong with these words; with others missing, what is wrong with each alone."""
    try:
        read(command, words)
    except config.ConfigError as error:
        lines = str(error).splitlines()
        if complete:
            return lines
        return [line for line in lines if "unknown key" in line or "no such file" in line]
    return []


def read(command, words):
    """Read the words as the command does; words that are neither files nor overrides are left out.

    Raises:
        ConfigError: One line a problem.
    """
    files = [word for word in words if config.is_file(word)]
    overrides = [word for word in words if "=" in word and not word.startswith("jobs=")]
    if command == "sweep":
        seeds = [word for word in overrides if word.startswith("seeds=")]
        if files:
            config.read(SweepFile, [*files, *seeds])
        config.load(["quickstart.yaml", *(word for word in overrides if word not in seeds)])
    elif command == "fit":
        config.load(presets.complete_words([*files, *overrides])[0])
    elif command == "identify":
        config.read(Identify, presets.complete_words([*files, *overrides])[0])
    elif command == "audit":  # what it does not say is known of a run
        config.read(
            lambda: make_settings(target="T", retain_model="R", model=Model(path="M")),
            [*files, *overrides],
        )
    elif command in SCHEMAS and overrides:  # evaluate --metrics reads no key
        config.read(SCHEMAS[command], [*files, *overrides])


LINES = sorted({line for page in PAGES for line in commands_of(page)})


def test_the_readme_is_short_and_has_the_two_commands_that_people_run():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 180
    install = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e "
    assert f"\n{install}. && .venv/bin/python -m tif.fit\n" in text
    assert f"\n{install}'.[test]' && .venv/bin/pytest\n" in text


def test_a_wrong_command_would_be_seen():
    assert problems_of(*words_of("tif fit loss.bata=0.1"), True) == [
        "loss.bata: unknown key; did you mean loss.beta?"
    ]
    assert problems_of(*words_of("tif evaluate ... tofu.spit=forget01"), False)
    assert words_of("sbatch slurm/fit.sbatch my.yaml a=1 [b=2 ...] ...") == ("fit", ["a=1"])


@pytest.mark.parametrize("line", LINES)
def test_every_command_in_the_documentation_parses(line):
    command, words = words_of(line)
    names_all_files = all(is_known_file(word) for word in shlex.split(line) if config.is_file(word))
    complete = names_all_files and "..." not in line and not re.search(r"=KIND\b", line)
    assert problems_of(command, words, complete) == []


def test_every_example_of_a_command_in_help_starts_its_line():
    files = [*(ROOT / "tif").glob("*.py"), *(ROOT / "tif").glob("*/command.py")]
    assert len(files) >= 7
    for file in files:
        _, *lines = (
            ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        ).splitlines()
        for line in lines:
            is_example = re.search(
                r" tif (fit|identify|evaluate|report|sweep|bench|audit) ", line.strip()
            )
            assert not is_example or "#" in line, file


def test_the_rooms_are_those_of_the_code_in_its_order():
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    assignments = [node for node in tree.body if isinstance(node, ast.Assign)]
    values = {ast.unparse(node.targets[0]): node.value for node in assignments}
    rooms = [row[0] for row in cells(section(ROOT / "docs" / "architecture.md", "## Rooms"))]
    assert rooms == list(ast.literal_eval(values["ROOMS"]))
    readme = "\n".join(section(ROOT / "README.md", "## Where things are"))
    assert re.findall(r"`(\w+)`", readme) == rooms


def test_every_file_in_the_table_of_changes_exists():
    rows = cells(section(ROOT / "docs" / "architecture.md", "## Where do I change X?"))
    assert len(rows) >= 15
    assert [row for row in rows if not (ROOT / row[1]).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_and_named_file_exists(page):
    text = page.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    named = re.findall(r"`((?:tif|lab|tests|configs|docs|slurm|notebooks)/[\w./-]+)`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    scripts = [ROOT / "lab" / name for name in re.findall(r"python -m lab\.([a-z_]+)", text)]
    missing += [path for path in scripts if not (path.is_dir() or path.with_suffix(".py").exists())]
    assert missing == []


def test_every_page_is_in_the_sites_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    names = re.findall(r"[ :]([\w/-]+\.md)$", navigation, re.MULTILINE)
    written = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]}
    assert written == {name for name in names if not name.startswith("api/")}


@pytest.fixture(scope="module")
def hooks():
    """docs/hooks.py as a module; mkdocs itself is not needed."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_name_every_key_method_term_and_metric(hooks):
    parts = {name: make() for name, make in hooks.GENERATED.items()}
    wanted = {
        "configuration": [f"`{key}=" for key, _, _ in list_keys(Config())],
        "methods": [f"| `{file.stem}` |" for file in (ROOT / "configs" / "loss").glob("*.yaml")],
        "terms": [f"| `{name}` |" for name in (*FORGET, *RETAIN)],
        "metrics": [f"### `{card.name}`\n" for card in metric_cards()],
        "identifiers": [
            f"| `{name}` | {kind.title} |" for name, kind in entries("identifier").items()
        ],
    }
    for name, texts in wanted.items():
        assert [text for text in texts if text not in parts[name]] == []


def test_every_marker_in_the_pages_has_a_function(hooks):
    markers = []
    for page in PAGES:
        markers += hooks.MARKER.findall(page.read_text(encoding="utf-8"))
    assert sorted(markers) == sorted(hooks.GENERATED)


def test_every_room_has_a_page_of_the_api(hooks):
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"- api/(\w+)\.md", navigation)) == set(hooks.rooms())


def test_plain_text_is_shown_unchanged(hooks):
    assert hooks.markdown_text("a_b <c> | `d_e | f`") == r"a\_b &lt;c&gt; \| `d_e | f`"


def test_a_docstrings_entry_with_two_names_becomes_two_entries():
    path = ROOT / "docs" / "griffe_names.py"
    pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("griffe_names", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (
        "Args:\n    low, high: bounds,\n        included.\n    name: a name, or none: see there.\n"
    )
    bounds = ["    low: bounds,", "        included.", "    high: bounds,", "        included."]
    expected = "\n".join(["Args:", *bounds, "    name: a name, or none: see there.", ""])
    assert module.ENTRY.sub(module.repeat_entry, text) == expected


def test_readme_and_docs_have_at_most_30_000_words():
    assert sum(len(page.read_text(encoding="utf-8").split()) for page in PAGES) <= 30_000
