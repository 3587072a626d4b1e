"""Fill the generated parts of the pages from the code, while mkdocs builds the site.

A line `<!-- generated: NAME -->` in a page is replaced by what the function of that name in
GENERATED returns. mkdocs calls `on_files` and `on_page_markdown`.
"""

import ast
import csv
import dataclasses
import functools
import html
import pathlib
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # mkdocs is started in the checkout; tif need not be installed there

import tif.losses  # noqa: E402, F401  registers the methods
from tif.bench.settings import BenchSettings  # noqa: E402
from tif.config import load as config  # noqa: E402
from tif.config import registry  # noqa: E402
from tif.config.command_keys import Evaluate  # noqa: E402
from tif.config.help import list_method_files  # noqa: E402
from tif.config.keys import list_keys, type_name  # noqa: E402
from tif.config.schema import Config, Loss  # noqa: E402
from tif.metrics.registry import metric_cards  # noqa: E402

PACKAGE = ROOT / "tif"
TERMS_HEADER = (
    "| name | role | what it does | configs/loss | own keys | source |", "|---" * 6 + "|",
)  # fmt: skip
MARKER = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with its generated parts filled in."""
    return MARKER.sub(lambda match: GENERATED[match[1]](), markdown)


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add a page for each room with the documentation of its modules."""
    from mkdocs.structure.files import File

    for room in rooms():
        modules = [f"::: {name}" for name in modules_of(room)]
        text = "\n\n".join([f"# tif.{room}", *modules]) + "\n"
        files.append(File.generated(config, f"api/{room}.md", content=text))
    return files


def rooms() -> list[str]:
    """Return the rooms in the order of docs/architecture.md, which a test keeps true."""
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("\n## Rooms\n")[1]
    return [
        room
        for room in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
        if (PACKAGE / room).is_dir()
    ]


def modules_of(room: str) -> list[str]:
    """Return the full names of the documented modules of a room, the package itself first."""
    names = []
    for path in sorted((PACKAGE / room).rglob("*.py")):
        if module_summary(path) and path.name != "__main__.py":
            parts = path.relative_to(ROOT).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def module_path(name: str) -> pathlib.Path:
    """Return the file of a module or package."""
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def module_summary(path: pathlib.Path) -> str:
    """Return the first paragraph of a module's docstring."""
    return first_paragraph(ast.parse(path.read_text(encoding="utf-8")))


def first_paragraph(node: Any) -> str:
    """Return the first paragraph of the docstring of a module, class or function, in one line."""
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def notebook() -> str:
    """Return the table of the names that `import tif` offers."""
    rows = ["| name | what it does |", "|---|---|"]
    for name, target in tif.API.items():
        module, attribute = target.split(":")
        tree = ast.parse(module_path(module).read_text(encoding="utf-8"))
        functions = [node for node in tree.body if getattr(node, "name", "") == attribute]
        summary = markdown_text(first_paragraph(functions[0]))
        rows.append(f"| [`tif.{name}`][{module}.{attribute}] | {summary} |")
    return "\n".join(rows)


def api() -> str:
    """Return the table of all modules, room by room, with the first paragraph of each."""
    rows = ["| module | what it is for |", "|---|---|"]
    for room in rooms():
        for name in modules_of(room):
            summary = markdown_text(module_summary(module_path(name)))
            rows.append(f"| [`{name.removeprefix('tif.')}`](api/{room}.md#{name}) | {summary} |")
    return "\n".join(rows)


def readme() -> str:
    """Return README.md as a page of the site: links into docs/ become links between pages."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.replace("](docs/", "](")
    return re.sub(r"\[([^\]]+)\]\(notebooks/[^)]+\)", r"`\1`", text)


def configuration(schema: Any = Config) -> str:
    """Return every key of `schema` with its default, type and sentence, section by section.

    A section that `tif.fit` has too is described there only.
    """
    entries: dict[str, list[str]] = {}
    for key, field, default in list_keys(schema()):
        section = key.split(".")[0] if "." in key else ""
        entries.setdefault(section, []).append(configuration_entry(key, field, default))
    sections = {field.name: field.type for field in dataclasses.fields(schema)}
    shared = {field.type: field.name for field in dataclasses.fields(Config)}
    lines = []
    for section, section_entries in sorted(entries.items(), key=lambda item: item[0] != ""):
        lines += ["", f"### {section or 'keys without a section'}", ""]
        if section and schema is not Config and sections[section] in shared:
            lines.append(f"The same keys as section [{section}](#{section}) of `tif.fit`.")
            continue
        if section:
            lines += [markdown_text(sections[section].__doc__ or ""), ""]
        lines += section_entries
    return "\n".join(lines)


def configuration_entry(key: str, field: dataclasses.Field, default: str) -> str:
    """Return one key as an entry of a list of definitions."""
    choices = field.metadata.get("choices")
    kind = " | ".join(choices) if choices else type_name(field.type)
    meaning = markdown_text(field.metadata["help"])
    return f"`{key}={default}`\n:   {meaning}<br><small>{kind}</small>\n"


def metrics() -> str:
    """Return the card of every metric: what it tells, formula, range, which way is better."""
    lines = []
    for card in metric_cards():
        lines += ["", f"### `{card.name}`", "", markdown_text(card.sentence), ""]
        lines += [f"- {field}: {markdown_text(text)}" for field, text in card.fields.items()]
    return "\n".join(lines)


def methods() -> str:
    """Return the table of the published methods: file, composition, source."""
    rows = ["| file | composition | source |", "|---|---|---|"]
    for path in sorted((ROOT / "configs" / "loss").glob("*.yaml")):
        loss = config.read(Config, [str(path), "model.path=MODEL", "eval.enabled=false"]).loss
        source = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        rows.append(f"| `{path.stem}` | {composition(loss)} | {markdown_text(source)} |")
    return "\n".join(rows)


def terms() -> str:
    """Return all loss terms as a table, first forget terms, then retain terms."""
    lines = [*TERMS_HEADER]
    files = list_method_files()
    for role in ("forget", "retain"):
        for name, term in sorted(registry.entries(role).items()):
            names = files.get(name, []) if role == "forget" else []
            lines.append(term_row(role, term, [f"`{stem}`" for stem in names]))
    return "\n".join(lines) + "\n"


def term_row(role: str, term: registry.Entry, files: list[str]) -> str:
    """Return a term's row of the table."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in term.doc.split("\n\n")]
    source = paragraphs[-1].removeprefix("Source: ") if len(paragraphs) > 1 else ""
    keys = [f"`{key}={value}`" for key, _, value in list_keys(term.keys())]
    cells = [f"`{term.name}`", role, paragraphs[0], ", ".join(files), ", ".join(keys), source]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def composition(loss: Loss) -> str:
    """Return the terms of a method in words: `npo` on answers + `ce` on retain samples."""
    parts = [f"`{loss.forget}` on {'unwanted words' if loss.on == 'uw' else 'answers'}"]
    if loss.preserve != "none":
        parts.append(f"{weight(loss.pl_weight)}`{loss.preserve}` on general words")
    if loss.retain != "none":
        parts.append(f"{weight(loss.retain_weight)}`{loss.retain}` on retain samples")
    return " + ".join(parts)


def weight(value: float) -> str:
    """Return a term's weight as it stands before the term; nothing for 1."""
    return "" if value == 1 else f"{value:g} "


def table(path: pathlib.Path) -> str:
    """Return a CSV file as a table."""
    header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def architectures() -> str:
    """Return the table of model families, under a line that counts its cells."""
    path = ROOT / "lab" / "architectures.csv"
    _, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    cells = [cell for row in rows for cell in row[1:]]
    right, refused = (sum(cell.startswith(word) for cell in cells) for word in ("right", "refused"))
    counts = f"{right} right, {refused} refused, {len(cells) - right - refused} wrong"
    count = f"{len(rows)} families and variants, {len(cells)} cells: {counts}."
    return f"{count}\n\n{table(path)}"


def markdown_text(text: str) -> str:
    """Return plain text as Markdown that shows it unchanged; text in backticks stays code."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):  # every second part is code
        escaped = html.escape(parts[number], quote=False)
        parts[number] = re.sub(r"([|*_])", r"\\\1", escaped)
    return "`".join(parts)


def identifiers() -> str:
    """Return all identifiers as a table."""
    lines = ["| `identifier.kind` | a word is unwanted where |", "|---|---|"]
    for name, kind in registry.entries("identifier").items():
        lines.append(f"| `{name}` | {kind.title} |")
    return "\n".join(lines) + "\n"


GENERATED: dict[str, Callable[[], str]] = {
    "readme": readme,
    "configuration": configuration,
    "configuration-evaluate": lambda: configuration(Evaluate),
    "configuration-bench": lambda: configuration(BenchSettings),
    "metrics": metrics,
    "methods": methods,
    "api": api,
    "notebook": notebook,
    "terms": terms,
    "identifiers": identifiers,
    "architectures": architectures,
}
for path in sorted((ROOT / "lab" / "tables").glob("*.csv")):
    GENERATED[f"table-{path.stem}"] = functools.partial(table, path)
