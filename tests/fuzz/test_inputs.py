"""Mutated span files, data, records and logs, through the commands that read them."""

import dataclasses
import json

import tif.evaluate as evaluate
import tif.identify as identify
import tif.training.run  # noqa: F401  (slow to import: not in the time of a case)
from tests.support import muse_corpus, tofu_files
from tests.support.evaluation_logs import log
from tests.support.mutations import find_problems, mutate_bytes, mutate_json_file
from tif.config import load as config
from tif.data.benchmarks import read_benchmark
from tif.data.samples import Sample, Span
from tif.identifiers.span_file import write_spans
from tif.records.files import read_evaluation, write_evaluation
from tif.records.types import TokenStats

SAMPLES = (
    Sample("toy/0", "Where does she live?", "In Oslo, since 1998.", (Span(3, 7), Span(15, 19))),
    Sample("toy/1", "", "Łucja’s \U0001f388 town 东京 [red]x[/red]", (Span(0, 5),)),
    Sample("toy/2", "Who?", "Nobody.", ()),
)


def mutate_file(rng, source, target, lines=False):
    """Write a mutated copy of a file; where it is JSON, mostly still JSON."""
    data = source.read_bytes()
    is_json = source.suffix in (".json", ".jsonl")
    mutated = mutate_json_file(rng, data, lines) if is_json else mutate_bytes(rng, data)
    target.write_bytes(mutated)


def test_span_files(tmp_path, count):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    write_spans(good, SAMPLES, {"kind": "gold", "template": "{prompt}"})

    def make_call(rng):
        mutate_file(rng, good, bad, lines=True)
        words = rng.choice((
            ["show", str(bad)], ["show", str(bad), "--html"], ["compare", str(good), str(bad)],
            ["compare", str(bad), "--json"],
        ))  # fmt: skip
        return lambda: identify.main(words)

    assert find_problems("span files", count, make_call) == ""


test_span_files.cases = 30, 400


def test_spans_that_a_run_reads(tmp_path, count):
    data, good, bad = tmp_path / "forget.jsonl", tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    rows = [{"question": s.prompt, "answer": s.answer} for s in SAMPLES if s.prompt]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = ["data.benchmark=text", f"data.path={data}"]
    assert identify.main([*keys, "identifier.kind=all", f"out={good}"]) == 0

    def make_call(rng):
        mutate_file(rng, good, bad, lines=True)
        kind = ["identifier.kind=precomputed", f"identifier.path={bad}"]
        return lambda: identify.main([*keys, *kind, f"out={tmp_path / 'out.jsonl'}"])

    assert find_problems("spans of a run", count, make_call) == ""


test_spans_that_a_run_reads.cases = 3, 150


def identify_data(folder, benchmark, rng, *more):
    """Return the call that reads a benchmark and marks it, without a model."""
    kind = rng.choice(("all", "random", "none"))
    keys = [f"data.benchmark={benchmark}", f"data.path={folder}", *more]

    def call():
        code = identify.main([*keys, f"identifier.kind={kind}", f"out={folder.parent / 'o.jsonl'}"])
        if code == 0:  # then a tokenizer can read the texts
            data = read_benchmark(config.load(["quickstart.yaml", *keys]).data)
            for samples in (data.forget, data.retain, *data.sets.values()):
                for sample in samples:
                    texts = sample.paraphrased_prompt or "", sample.paraphrased_answer or ""
                    "".join(
                        (sample.prompt, sample.answer, *texts, *sample.perturbed_answers)
                    ).encode()
        return code

    return call


def test_lines_of_tofu(tmp_path, count):
    good, folder = tmp_path / "good", tmp_path / "tofu"
    for place in (good, folder):
        place.mkdir()
        for name, rows in tofu_files.FILES.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (place / f"{name}.json").write_text(text)

    def make_call(rng):
        name = f"{rng.choice(list(tofu_files.FILES))}.json"
        for path in good.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        mutate_file(rng, good / name, folder / name, lines=True)
        return identify_data(folder, "tofu", rng, "data.split=forget01")

    keys = ["data.benchmark=tofu", f"data.path={folder}", "data.split=forget01"]
    assert identify.main([*keys, "identifier.kind=all", f"out={tmp_path / 'x.jsonl'}"]) == 0
    assert find_problems("lines of TOFU", count, make_call) == ""


test_lines_of_tofu.cases = 4, 200


def test_files_of_muse_and_texts(tmp_path, count):
    good, folder = tmp_path / "good", tmp_path / "muse-news"
    muse_corpus.corpus(good)
    muse_corpus.corpus(folder)
    keys = ["data.benchmark=muse-news", f"data.path={folder}", "identifier.kind=all"]
    assert identify.main([*keys, f"out={tmp_path / 'x.jsonl'}"]) == 0
    names = [name for name in muse_corpus.FILES if not name.startswith("scal")]
    texts = {"forget.jsonl": good / "knowmem/forget_qa.json", "forget.txt": good / "raw/forget.txt"}

    def make_call(rng):
        if rng.random() < 0.3:
            name, source = rng.choice(list(texts.items()))
            mutate_file(rng, source, tmp_path / name)
            return identify_data(tmp_path / name, "text", rng)
        name = rng.choice(names)
        for path in good.rglob("*.*"):
            (folder / path.relative_to(good)).write_bytes(path.read_bytes())
        mutate_file(rng, good / name, folder / name)
        return identify_data(folder, "muse-news", rng)

    assert find_problems("files of MUSE", count, make_call) == ""


test_files_of_muse_and_texts.cases = 4, 200


def with_stats(evaluation):
    """Return the evaluation with numbers of every token, as tif's own records have them."""
    sets = {}
    for name, records in evaluation.sets.items():
        rows = []
        for record in records.records:
            n = record.tokens
            stats = TokenStats((-0.5,) * n, (True,) * n, (-1.0,) * n, (0.5,) * n, (0.1,) * n)
            rows.append(dataclasses.replace(record, stats=stats))
        sets[name] = dataclasses.replace(records, records=tuple(rows), data="x")
    protocol = {"name": "open-unlearning", "end_token": True}
    return dataclasses.replace(evaluation, sets=sets, family="llama", epoch=1, protocol=protocol)


def evaluate_files(bad, good, rng):
    """Return the call that reads a mutated evaluation, alone or beside a good one."""
    words = rng.choice((
        [f"records={bad}"], [f"records={bad}", "--json"],
        [f"records={good}", f"retain_records={bad}"],
        [f"records={bad}", f"retain_records={good}", "allow_mismatch=true"],
    ))  # fmt: skip
    return lambda: evaluate.main([*words, "draws=20"])


def test_records(tmp_path, count):
    good, bad = tmp_path / "good", tmp_path / "bad"
    evaluation = with_stats(read_evaluation(log(tmp_path / "log.json")))
    for folder in (good, bad):
        write_evaluation(folder, evaluation, {"forget/probability": 0.5, "forget/quality": None})
    assert evaluate.main([f"records={good}", f"retain_records={good}"]) == 0

    def make_call(rng):
        for path in good.iterdir():
            (bad / path.name).write_bytes(path.read_bytes())
        name = rng.choice(sorted(path.name for path in good.iterdir()))
        mutate_file(rng, good / name, bad / name)
        return evaluate_files(bad, good, rng)

    assert find_problems("records", count, make_call) == ""


test_records.cases = 10, 300


def open_unlearning(content):
    """Return a TOFU_EVAL.json with the numbers of a log of locuslab/tofu."""
    tasks = {"forget": "eval_log_forget.json", "retain": "eval_log.json"}
    metrics = {}
    for prefix, task in tasks.items():
        rows = content[task]
        texts = [dict(zip(("input", "generation", "ground_truth"), row, strict=True))
                 for row in rows["generated_text"]]  # fmt: skip
        columns = {
            "Prob": rows["avg_gt_loss"], "PARA_Prob": rows["avg_paraphrased_loss"],
            "PERT_Prob": rows["average_perturb_loss"],
        }  # fmt: skip
        for name, values in columns.items():
            by_index = {str(i): {"avg_loss": value} for i, value in enumerate(values)}
            metrics[f"{prefix}_Q_A_{name}"] = {"agg_value": 0.5, "value_by_index": by_index}
        by_index = {str(i): text for i, text in enumerate(texts)}
        metrics[f"{prefix}_Q_A_ROUGE"] = {"agg_value": 0.5, "value_by_index": by_index}
    return metrics


def test_logs_of_other_repositories(tmp_path, count):
    good, bad = log(tmp_path / "good.json"), tmp_path / "bad.json"
    other = tmp_path / "TOFU_EVAL.json"
    other.write_text(json.dumps(open_unlearning(json.loads(good.read_text()))))
    assert evaluate.main([f"records={good}"]) == evaluate.main([f"records={other}"]) == 0

    def make_call(rng):
        mutate_file(rng, rng.choice((good, other)), bad)
        return evaluate_files(bad, good, rng)

    assert find_problems("logs", count, make_call) == ""


test_logs_of_other_repositories.cases = 10, 300
