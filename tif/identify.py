"""python -m tif.identify: find the unwanted words of the forget samples, compare identifiers, look at what they found.

    python -m tif.identify [file.yaml ...] [key=value ...] [out=spans.jsonl] [--print] [--help]

writes a span file, which tif.fit reads with identifier.kind=precomputed identifier.path=spans.jsonl. It takes the files
and keys of tif.fit and reads their sections data and identifier (and run.folder, model.path, model.base and stages,
where an identifier needs them); without a file: quickstart.yaml.

    python -m tif.identify identifier.kind=gold out=gold.jsonl
    python -m tif.identify identifier.kind=masked_lm identifier.masked_lm.preset=released-tofu out=bert.jsonl
    python -m tif.identify identifier.kind=causal_lm identifier.causal_lm.model=HuggingFaceTB/SmolLM2-135M out=lm.jsonl
    python -m tif.identify identifier.kind=contrastive identifier.contrastive.base=retain out=both.jsonl

    python -m tif.identify identifier.kind=generative identifier.generative.model=gpt-4o-mini out=gpt.jsonl
        with OPENAI_API_KEY in the environment; identifier.generative.base_url=http://127.0.0.1:8000/v1 for a server of
        your own, identifier.generative.dry_run=true to see what it would cost

    python -m tif.identify compare A.jsonl B.jsonl ... [tokenizer=FOLDER] [--json]

precision, recall and F1 of the unwanted words where one of the files was made by identifier.kind=gold, their share of
all words, and the Jaccard index of each two files; with tokenizer=, of tokens instead of words.

    python -m tif.identify show FILE.jsonl [--html]

the answers with their unwanted words in red; --html writes them to FILE.html instead.

Exit code: 0 done, 1 a file could not be read or written, 2 wrong input (one line a problem, before weights load).
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.config import load as config
from tif.config.errors import ConfigError, one_line
from tif.config.paths import check_writable
from tif.config.schema import Config, key
from tif.utils import command_line
from tif.utils.command_line import report_os_error


@dataclasses.dataclass
class Identify(Config):
    """A run's configuration, of which only what the identifier reads must be right, and the span file."""

    out: str | None = key(None, "span file to write (.jsonl); null = <run.folder>/spans/<kind>-<hash>.jsonl")

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        return self.data.find_problems() + self.identifier.find_problems(self.model)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code, as told above."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if {"-h", "--help"} & set(words):
            print(f"{__doc__}\nKeys, with their defaults:\n{config.help_text(Identify)}")
        elif words[:1] == ["compare"]:
            compare(words[1:])
        elif words[:1] == ["show"]:
            show(words[1:])
        else:
            make(words)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except Exception as error:
        return report_os_error(error, "no file was changed, and the same command goes on with what was kept")
    return 0


def make(words: Sequence[str]) -> None:
    """Find the words and write the span file.

    Raises:
        ConfigError: One line a problem, before weights load.
    """
    if not any(map(config.is_file, words)):
        words = ["quickstart.yaml", *words]
    cfg = config.read(Identify, [word for word in words if word != "--print"])
    if "--print" in words:
        print(config.to_yaml(cfg), end="")
        return
    if cfg.out and not cfg.out.endswith(".jsonl"):
        raise ConfigError(f"out: want a file name that ends in .jsonl, got {cfg.out}")
    from tif.data.benchmarks import read_benchmark
    from tif.identifiers import identify, settings, stored_spans
    from tif.identifiers import span_file as store
    from tif.training import plan as planning
    from tif.training.run import make_stage
    from tif.training.run_folders import check_run_folder
    from tif.utils.terminal import quiet_libraries

    run = Config(**{f.name: getattr(cfg, f.name) for f in dataclasses.fields(Config)})
    quiet_libraries()
    try:
        samples = read_benchmark(run.data).forget
        if cfg.out:
            check_writable("out", Path(cfg.out).parent)
        else:
            check_run_folder(run.run, planning.config_text(run))
        planning.check_identifier(run)
        if run.identifier.kind == "generative" and run.identifier.generative.dry_run:
            identify(run.identifier, samples)
            return
        plans = [planning.plan_stage(run, name) for name in planning.identifier_stages(run)]
        stages = {str(plan.stage): make_stage(plan) for plan in plans}
        identifier = stored_spans.with_stage_models(planning.identifier_of(run), stages)
        template, folder = run.data.template, Path(run.run.folder) / "spans"
        found = stored_spans.identify_once(identifier, samples, template, folder)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    path = stored_spans.span_path(identifier, samples, template, folder)
    out = Path(cfg.out) if cfg.out else path
    store.write(out, found, settings(identifier, template))
    _tell_made(out, found)


def _tell_made(out: Path, found: Sequence[Any]) -> None:
    from rich.markup import escape

    from tif.identifiers.show import summary
    from tif.utils.terminal import console

    console.print(f"{escape(str(out))}: {summary(found)}", soft_wrap=True)


def compare(words: Sequence[str]) -> None:
    """Print how far span files agree.

    Raises:
        ConfigError: One line a problem.
    """
    given = dict(word.split("=", 1) for word in words if word.startswith("tokenizer="))
    paths = [word for word in words if word != "--json" and not word.startswith("tokenizer=")]
    if not paths or any(path.startswith("-") for path in paths):
        raise ConfigError("compare: want span files (.jsonl), and nothing but [tokenizer=FOLDER] [--json]")
    from tif.identifiers import compare as comparing

    try:
        units = _tokens_of(given["tokenizer"]) if given else comparing.word_units
        found = comparing.compare(paths, units)
    except ValueError as error:
        raise ConfigError(one_line(error)) from None
    if "--json" in words:
        print(json.dumps(found, indent=1, allow_nan=False))
        return
    _show_comparison(found, "tokens" if given else "words")


def _tokens_of(path: str) -> Any:
    from tif.identifiers import language_models as readers
    from tif.identifiers.compare import token_units

    try:
        tokenizer = readers.tokenizer(path)
    except FileNotFoundError:
        raise ValueError(f"tokenizer: no folder {path}; want a Hugging Face folder or hub name") from None
    except (OSError, ValueError, TypeError, LookupError, ImportError) as error:
        raise ValueError(f"tokenizer: {path} has no tokenizer that can be loaded ({one_line(error)})") from None
    if not tokenizer.is_fast:
        raise ValueError(f"tokenizer: {path} gives no character offsets; want a fast tokenizer")
    return token_units(tokenizer)


def _show_comparison(found: dict[str, Any], units: str) -> None:
    """Two tables; files are numbered, so that columns stay narrow whatever their names and number."""
    from rich.markup import escape

    from tif.utils.terminal import console

    scores = {"uw_share": "unwanted"}
    if found["gold"]:
        scores |= {"precision": "precision", "recall": "recall", "f1": "F1"}
    gold = f", gold: {found['gold']}" if found["gold"] else ", no gold file among them"
    console.print(f"{found['samples']} samples, {found['units']:,} {units}{escape(gold)}", soft_wrap=True)
    rows = {name: [own[score] for score in scores] for name, own in found["files"].items()}
    _print_numbers(f"share of {units}", list(scores.values()), rows)
    if len(rows) > 1:
        jaccard = {name: list(own.values()) for name, own in found["jaccard"].items()}
        _print_numbers("Jaccard index with file", [str(n) for n in range(1, len(rows) + 1)], jaccard)


def _print_numbers(title: str, columns: Sequence[str], rows: dict[str, list[float | None]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from tif.utils.terminal import console

    digits = len(str(len(rows)))
    names = {name: f"{number:>{digits}}  {name}" for number, name in enumerate(rows, 1)}
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(title, no_wrap=True, min_width=max(map(len, (title, *names.values()))))
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True, min_width=max(5, len(column)))
    for name, row in rows.items():
        table.add_row(escape(names[name]), *("-" if x is None else f"{x:.3f}" for x in row))
    console.print()
    console.print(table, crop=False)  # a line too long is the terminal's to fold: no name and no number is cut


def show(words: Sequence[str]) -> None:
    """Show a span file.

    Raises:
        ConfigError: One line a problem.
    """
    paths = [word for word in words if word != "--html"]
    if len(paths) != 1 or paths[0].startswith("-"):
        raise ConfigError("show: want one span file (.jsonl) and nothing but [--html]")
    from rich.markup import escape

    from tif.identifiers import show as showing
    from tif.identifiers import span_file as store
    from tif.utils.files import write_text
    from tif.utils.terminal import console

    path = Path(paths[0])
    try:
        samples, head = store.samples(path), store.header(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if "--html" not in words:
        showing.in_terminal(samples, console)
        return
    own = head.get("identifier")
    page = path.with_suffix(".html")
    write_text(page, showing.page(path.name, own if isinstance(own, dict) else {}, samples))
    console.print(escape(str(page)), soft_wrap=True)


if __name__ == "__main__":
    command_line.run_main(main)
