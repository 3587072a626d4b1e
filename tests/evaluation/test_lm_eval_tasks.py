"""lm-eval's tasks on a loaded model and through the commands: values, processes, precision."""

import json
import math
import os

import pytest
import torch
import transformers

from tests.support.lm_eval_task import FACTS, plain_accuracy, task_folder
from tests.support.process_groups import together
from tests.support.small_run import SMALL, finished, rows
from tif import fit
from tif.config.schema import LmEval
from tif.evaluation import lm_eval_tasks as ability

TASKS = ("tif_facts", "tif_next", "tif_rolling", "tif_said")
OTHERS = {  # the other ways in which lm-eval asks
    "tif_next": "output_type: loglikelihood\n"
    "metric_list: [{metric: perplexity, higher_is_better: false}]",
    "tif_rolling": "output_type: loglikelihood_rolling\nmetric_list: [{metric: word_perplexity}]",
    "tif_said": "output_type: generate_until\ngeneration_kwargs: {until: [zzz], max_gen_toks: 5}\n"
    "metric_list: [{metric: exact_match}]",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tasks = task_folder(tmp_path_factory.mktemp("lm-eval") / "tasks")
    for name, rest in OTHERS.items():
        text = f"dataset_path: json\ndataset_kwargs: {{data_files: {tasks / 'facts.jsonl'}}}\n"
        text += "test_split: train\n"
        first = "{{choices[0]}}" if name == "tif_rolling" else " {{choices[0]}}"
        prompt = "" if name == "tif_rolling" else "Question: {{question}}\\nAnswer:"
        words = f'task: {name}\ndoc_to_text: "{prompt}"\ndoc_to_target: "{first}"\n'
        (tasks / f"{name}.yaml").write_text(words + text + rest + "\n")
    return tasks


def ask_tasks(folder, llama, names=TASKS, **keys):
    model, tokenizer = (
        kind.from_pretrained(llama)
        for kind in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    )
    return ability.run_tasks(model, tokenizer, names, LmEval(str(folder), **keys))


def in_a_process(*args):
    """As torchrun starts it: lm-eval answers the node's first process only."""
    os.environ["LOCAL_RANK"] = str(torch.distributed.get_rank())
    return ask_tasks(*args)


@pytest.mark.guard
@pytest.mark.slow
def test_all_kinds_of_tasks_are_what_a_plain_loop_finds_in_one_process_and_two(folder, llama):
    torch.set_num_threads(1)
    alone = ask_tasks(folder, llama)
    assert alone["lm-eval/tif_facts/acc"][0] == plain_accuracy(llama)
    assert alone["lm-eval/tif_said/exact_match"][0] == 0  # a model of random weights
    net, tokenizer = (
        kind.from_pretrained(llama)
        for kind in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    )
    sums = []
    for row in FACTS:
        ids = tokenizer(f"Question: {row['question']}\nAnswer: {row['choices'][0]}")["input_ids"]
        first = len(tokenizer(f"Question: {row['question']}\nAnswer:")["input_ids"])
        with torch.no_grad():
            logp = net(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(logp[t - 1, ids[t]].item() for t in range(first, len(ids))))
    assert alone["lm-eval/tif_next/perplexity"][0] == pytest.approx(
        math.exp(-sum(sums) / 3), rel=1e-5
    )
    assert set(alone) == {
        f"lm-eval/{name}"
        for name in (
            "tif_facts/acc",
            "tif_next/perplexity",
            "tif_rolling/word_perplexity",
            "tif_said/exact_match",
        )
    }
    assert together(2, in_a_process, folder, llama) == [alone, alone]


@pytest.mark.guard
@pytest.mark.slow
def test_the_model_runs_in_the_mixed_precision_that_is_on_and_scores_are_float32(
    folder, llama, monkeypatch
):
    seen = []
    head = transformers.LlamaForCausalLM.forward

    def noting(self, *args, **keys):
        outputs = head(self, *args, **keys)
        seen.append(outputs.logits.dtype)
        return outputs

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", noting)
    exact = ask_tasks(folder, llama, ["tif_next"])["lm-eval/tif_next/perplexity"][0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = ask_tasks(folder, llama, ["tif_next"])["lm-eval/tif_next/perplexity"][0]
    assert set(seen[: len(seen) // 2]) == {torch.float32}
    assert set(seen[len(seen) // 2 :]) == {torch.bfloat16}
    assert mixed != exact
    assert mixed == pytest.approx(exact, rel=2e-2)


@pytest.mark.slow
def test_so_many_questions_are_asked_as_are_wanted_and_nothing_is_told(folder, llama, capfd):
    transformers.utils.logging.disable_progress_bar()
    all_three = ask_tasks(folder, llama, ["tif_facts", "tif_next"])
    two = ask_tasks(folder, llama, ["tif_facts", "tif_next"], limit=2)
    assert two["lm-eval/tif_facts/acc"][0] == plain_accuracy(llama, FACTS[:2])
    assert two["lm-eval/tif_next/perplexity"] != all_three["lm-eval/tif_next/perplexity"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_outside_of_a_repository_git_is_not_heard(folder, llama, tmp_path, monkeypatch, capfd):
    transformers.utils.logging.disable_progress_bar()
    monkeypatch.chdir(tmp_path)
    assert ask_tasks(folder, llama, ["tif_facts"])["lm-eval/tif_facts/acc"][0] == plain_accuracy(
        llama
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "value", "error", "expected"),
    [
        ("lm-eval/mmlu/acc", 0.5, 0.1, (0.304, 0.696)),
        ("lm-eval/mmlu/acc", 0.99, 0.01, (0.9704, 1.0)),
        ("lm-eval/gsm8k/exact_match,strict-match", 0.05, 0.05, (0.0, 0.148)),
        ("lm-eval/wikitext/word_perplexity", 1.5, 0.5, (1.0, 2.48)),
        ("lm-eval/wikitext/bits_per_byte", 0.95, 0.1, (0.754, 1.146)),
        ("lm-eval/cola/mcc", 0.0, 0.1, (-0.196, 0.196)),
        ("lm-eval/wmt/bleu", 20.0, 1.0, (18.04, 21.96)),
    ],
)
def test_an_interval_stays_in_the_range_of_its_metric(name, value, error, expected):
    assert ability.confidence_interval(name, value, error) == pytest.approx(expected)


@pytest.mark.slow
def test_a_run_evaluates_lm_evals_tasks_beside_its_own(folder, tmp_path_factory, capfd):
    run = finished(tmp_path_factory)
    words = [*SMALL, f"run.folder={run.runs}", "run.name=able", "eval.benchmarks=lm-eval:tif_facts"]
    assert fit.main([*words, f"eval.lm_eval.folder={folder}", "eval.lm_eval.batch_size=2"]) == 0
    assert capfd.readouterr().err == ""
    evaluations = [row for row in rows(run.runs / "able") if "train/loss" not in row]
    assert [row["epoch"] for row in evaluations if "lm-eval/tif_facts/acc" in row] == [0, 1, 2]
    assert evaluations[-1]["lm-eval/tif_facts/acc"] == pytest.approx(
        plain_accuracy(run.runs / "able" / "model")
    )
    last = json.loads((run.runs / "able" / "eval" / "2" / "lm-eval.json").read_text())
    assert last["lm-eval/tif_facts/acc"][0] == evaluations[-1]["lm-eval/tif_facts/acc"]


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("tif_fact", "lm-eval has no task tif_fact; did you mean tif_facts?"),
        ("tif_lost", "lm-eval cannot run tif_lost ("),
    ],
)
def test_a_task_that_cannot_be_had_is_told_before_weights_load(
    folder, tmp_path, capsys, monkeypatch, task, line
):
    lost = (
        (folder / "facts.yaml")
        .read_text()
        .replace("facts.jsonl", "lost.jsonl")
        .replace("tif_facts", "tif_lost")
    )
    (folder / "lost.yaml").write_text(lost)
    monkeypatch.setattr(ability, "_task_manager", _only_in_folder)
    words = [
        f"run.folder={tmp_path}",
        f"eval.benchmarks=lm-eval:{task}",
        f"eval.lm_eval.folder={folder}",
    ]
    assert fit.main([*SMALL, *words]) == 2
    (error_line,) = capsys.readouterr().err.splitlines()
    assert error_line.startswith(f"eval.benchmarks: {line}")
    assert list(tmp_path.iterdir()) == []


def _only_in_folder(tasks, folder):
    """Without the seconds that lm-eval's own thousands of tasks take."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder, include_defaults=False)
