r"""tif identify: find the unwanted words of forget samples; compare and show span files.

    tif identify [file.yaml ...] [key=value ...] [out=spans.jsonl] [--print]
    tif identify --help [section ... | all]

writes a span file. tif.fit reads it with identifier.kind=precomputed identifier.path=spans.jsonl.
It takes the files and keys of tif.fit and reads their sections data and identifier (and run.folder,
model.path, model.base and stages, where an identifier needs them); without a file: as tif.fit.

    tif identify identifier.kind=gold out=gold.jsonl
    tif identify identifier.kind=masked_lm out=bert.jsonl \
        identifier.masked_lm.preset=released-tofu
    tif identify identifier.kind=causal_lm out=lm.jsonl \
        identifier.causal_lm.model=HuggingFaceTB/SmolLM2-135M
    tif identify identifier.kind=contrastive out=both.jsonl \
        identifier.contrastive.base=retain

    tif identify identifier.kind=generative out=gpt.jsonl \
        identifier.generative.model=gpt-4o-mini
        with OPENAI_API_KEY in the environment; for a server of your own, add
        identifier.generative.base_url=http://127.0.0.1:8000/v1; to see what it would cost,
        identifier.generative.dry_run=true

    tif identify compare A.jsonl B.jsonl ... [tokenizer=FOLDER] [--json]

prints precision, recall and F1 of the unwanted words where one of the files was made by
identifier.kind=gold, their share of all words, and the Jaccard index of each two files; with
tokenizer=, of tokens instead of words.

    tif identify show FILE.jsonl [--html | --json]

prints the answers with their unwanted words in red; --html writes them to FILE.html instead.
"""

import dataclasses
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tif.config import load as config
from tif.config import presets
from tif.config.command import Command
from tif.config.command_keys import Identify
from tif.config.errors import ConfigError, one_line
from tif.config.files import check_writable
from tif.config.schema import Config
from tif.utils import command_line

if TYPE_CHECKING:
    from tif.data.samples import Benchmark
    from tif.identifiers.span_comparison import FindUnits


def identify(options: Namespace) -> None:
    """Find the unwanted words and write the span file; with --print, print the configuration.

    Raises:
        ConfigError: One line a problem, before weights load.
    """
    keys, preset = presets.complete_words(options.words)
    cfg = config.read(Identify, keys)
    if options.print:
        from tif.evaluation.prompt_format import describe_run

        command_line.print_configuration(config.to_yaml(cfg), describe_run(cfg))
        return
    if cfg.out and not cfg.out.endswith(".jsonl"):
        raise ConfigError(f"out: want a file name that ends in .jsonl, got {cfg.out}")
    run = Config(**{f.name: getattr(cfg, f.name) for f in dataclasses.fields(Config)})
    with command_line.loading():
        from tif.utils.terminal import quiet_libraries

        quiet_libraries()
    try:
        _identify(run, cfg.out, preset)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _identify(run: Config, out: str | None, preset: str) -> None:
    """Check everything, make the stages that the identifier asks, and write the span file."""
    from tif.api.spans import find_spans
    from tif.data.benchmarks import read_benchmark
    from tif.evaluation.prompt_format import resolve_template
    from tif.identifiers import identify as find_unwanted_words
    from tif.training.checks import check_wandb
    from tif.training.plan import check_identifier
    from tif.training.resume import check_run_folder
    from tif.utils.terminal import console

    run = resolve_template(run)
    benchmark = read_benchmark(run.data)
    check_wandb(run.logger.wandb)
    if out:
        check_writable("out", Path(out).parent)
    else:
        check_run_folder(run)
    check_identifier(run)
    console.print(f"preset: {preset}, identifier: {run.identifier.kind}", soft_wrap=True)
    if run.identifier.is_dry_run():
        find_unwanted_words(run.identifier, benchmark.forget)
        return
    spans, path = find_spans(run, benchmark.forget)
    path = spans.save(out or path)
    console.print(f"{path}: {spans.summary}", soft_wrap=True)
    if run.logger.wandb.enabled:
        _log_to_wandb(run, dataclasses.replace(benchmark, forget=spans.samples), path)


def _log_to_wandb(run: Config, benchmark: "Benchmark", path: Path) -> None:
    """Log the unwanted words as a W&B run of its own."""
    from tif.identifiers.span_comparison import count_units
    from tif.reports import wandb_content
    from tif.reports.wandb_run import Labels, log_numbers

    settings = run.logger.wandb
    name, kind = wandb_content.short_name(benchmark), run.identifier.kind
    words, tables = count_units(benchmark.forget), {}
    if settings.samples:
        tables["samples"] = wandb_content.span_table(benchmark.forget, settings.samples)
    content = wandb_content.Content(
        {"identify/uw_share": words.unwanted_share, "identify/samples": len(benchmark.forget)},
        tables,
        [wandb_content.data_piece(benchmark)],
        [wandb_content.spans_piece(benchmark, path)],
    )
    labels = Labels(f"{kind} on {name}", run.run.name, "identify", [*name.split("/"), kind])
    log_numbers(settings, path.parent, labels, dataclasses.asdict(run), content)


def compare(options: Namespace) -> Any:
    """Print how far span files agree; with --json, return it.

    Raises:
        ConfigError: One line a problem.
    """
    if not options.words:
        raise ConfigError("compare: want span files (.jsonl)")
    from tif.identifiers.segmentation import find_words
    from tif.identifiers.span_comparison import compare_files

    try:
        find_units = _load_token_units(options.tokenizer) if options.tokenizer else find_words
        comparison = compare_files(options.words, find_units)
    except ValueError as error:
        raise ConfigError(one_line(error)) from None
    if options.json:
        return comparison
    _print_tables(comparison, "tokens" if options.tokenizer else "words")
    return None


def _load_token_units(path: str) -> "FindUnits":
    from tif.identifiers.span_comparison import make_token_units
    from tif.models.pretrained import Source, load_tokenizer
    from tif.utils.terminal import quiet_libraries

    quiet_libraries()
    tokenizer = load_tokenizer(Source(path, "tokenizer"))
    if not tokenizer.is_fast:
        raise ValueError(f"tokenizer: {path} gives no character offsets; want a fast tokenizer")
    return make_token_units(tokenizer)


def _print_tables(comparison: dict[str, Any], units: str) -> None:
    """Print two tables; files are numbered, so that columns stay narrow whatever their names."""
    from pandas import DataFrame

    from tif.utils.terminal import console, escape_controls

    columns = {"uw_share": "unwanted"}
    gold = ", no gold file among them"
    if comparison["gold"]:
        columns |= {"precision": "precision", "recall": "recall", "f1": "F1"}
        gold = f", gold: {comparison['gold']}"
    counts = f"{comparison['samples']} samples, {comparison['units']:,} {units}"
    console.print(counts + gold, soft_wrap=True)
    names = list(comparison["files"])
    numbers = [str(number) for number in range(1, len(names) + 1)]
    shares = DataFrame(comparison["files"], list(columns)).rename(columns)
    tables = {f"share of {units}": shares.T}
    if len(names) > 1:
        jaccard = DataFrame(comparison["jaccard"], names).set_axis(numbers)
        tables["Jaccard index with file"] = jaccard.T
    rows = [f"{number:>{len(numbers[-1])}}  {name}" for number, name in enumerate(names, 1)]
    for title, table in tables.items():
        table = table.astype(float).set_axis(map(escape_controls, rows))
        table = table.rename_axis(columns=title)
        # The terminal folds a line that is too long: no name and no number is cut.
        text = table.to_string(float_format="{:.3f}".format, na_rep="-", line_width=None)
        console.print(f"\n{text}", soft_wrap=True)


def show(options: Namespace) -> Any:
    """Print a span file's answers with their unwanted words marked, or write them as a page.

    Raises:
        ConfigError: One line a problem.
    """
    if len(options.words) != 1:
        raise ConfigError("show: want one span file (.jsonl)")
    from tif.identifiers import span_file
    from tif.identifiers.span_display import describe_samples, print_samples, render_page
    from tif.utils.files import write_text
    from tif.utils.terminal import console

    path = Path(options.words[0])
    try:
        samples, header = span_file.read_samples(path), span_file.read_header(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if options.json:
        return {"header": header, "samples": describe_samples(samples)}
    if not options.html:
        print_samples(samples, console)
        return None
    settings = header.get("identifier")
    page = path.with_suffix(".html")
    content = render_page(path.name, settings if isinstance(settings, dict) else {}, samples)
    write_text(page, content)
    console.print(str(page), soft_wrap=True)
    return None


PARTS = {
    "compare": Command(
        "identify compare", __doc__, compare, flags=("--json",), keys=("tokenizer",)
    ),
    "show": Command("identify show", __doc__, show, flags=("--html", "--json")),
}
COMMAND = Command(
    "identify", __doc__, identify, Identify, flags=("--print",), parts=PARTS,
    next_step="no file was changed, and the same command goes on with what was kept",
)
main = COMMAND.main

if __name__ == "__main__":
    COMMAND.run()
