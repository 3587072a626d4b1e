"""tif evaluate of a model: its numbers, its cache, what it refuses, several processes."""

import contextlib
import dataclasses
import io
import json
import os
import shutil

import pytest
import torch
import transformers

import tif.evaluate as evaluate
from tests.support.evaluation_logs import log
from tests.support.lm_eval_task import plain_accuracy, task_folder
from tests.support.muse_corpus import corpus
from tests.support.open_unlearning import QWEN
from tests.support.process_groups import together
from tests.support.tofu_files import FILES as TOFU
from tif.config.schema import Model
from tif.data.benchmarks.muse import read_muse
from tif.data.encoding import Encoder
from tif.evaluation import token_stats as gradients
from tif.evaluation.muse_prompts import ask_task
from tif.metrics import fluency, membership, overall
from tif.models import load as models
from tif.records import files as records


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A tiny BERT that sorts texts, with random weights; the class `clean` is its second."""
    from tests.support import language_models

    folder, tokenizer = tmp_path_factory.mktemp("classifier"), language_models.bert_tokenizer()
    torch.manual_seed(0)
    net = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            num_labels=3,
            id2label={0: "noise", 1: "clean", 2: "salad"},
            label2id={"noise": 0, "clean": 1, "salad": 2},
        )
    )
    net.classifier.weight.data *= 20
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """MUSE-like and TOFU-like data, small, and lm-eval's task."""
    folder = tmp_path_factory.mktemp("data")
    corpus(folder / "news")
    (folder / "tofu").mkdir()
    for name, rows in TOFU.items():
        (folder / "tofu" / f"{name}.json").write_text("\n".join(json.dumps(row) for row in rows))
    task_folder(folder / "tasks")
    return folder


def words(llama, data, out, *more):
    return [
        f"model.path={llama}",
        f"out={out}",
        f"eval.tofu.path={data / 'tofu'}",
        "eval.tofu.split=forget01",
        f"eval.muse_news.path={data / 'news'}",
        f"eval.lm_eval.folder={data / 'tasks'}",
        "eval.max_new_tokens=4",
        "draws=100",
        "device=cpu",
        *more,
    ]


def run(capsys, *argv):
    """What `--json` prints."""
    assert evaluate.main([*argv, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_model_is_asked_once_and_its_numbers_follow_from_its_records(
    llama, other_llama, classifier, data, tmp_path, capsys, monkeypatch
):
    argv = words(
        llama,
        data,
        tmp_path,
        "eval.benchmarks=tofu,muse-news,lm-eval:tif_facts",
        f"retain_model={other_llama}",
        f"membership.reference={other_llama}",
        "membership.gradient_norm=true",
        f"fluency.classifier={classifier}",
    )
    numbers = run(capsys, *argv)
    assert list(numbers["benchmarks"]) == ["tofu", "muse-news", "lm-eval"]
    tofu, news = numbers["benchmarks"]["tofu"], numbers["benchmarks"]["muse-news"]
    ours = {
        name: records.read_evaluation(numbers["benchmarks"][name]["folder"])
        for name in ("tofu", "muse-news")
    }
    theirs = {
        name: records.read_evaluation(
            next(tmp_path.glob(f"{os.path.basename(other_llama)}-*/{name}-[0-9a-f]*"))
        )
        for name in ("tofu", "muse-news")
    }
    expected = overall.aggregate(ours["tofu"], theirs["tofu"])
    assert tofu["forget_quality"] == pytest.approx(expected["forget/quality"])
    assert tofu["model_utility"] == pytest.approx(expected["utility/model"])
    assert tofu["tasks"]["forget"]["extraction_strength"] == pytest.approx(
        expected["forget/extraction_strength"]
    )
    retain_numbers = tofu["retain_metrics"]
    in_runs = overall.aggregate(theirs["tofu"])
    assert {name: retain_numbers[name] for name in in_runs} == pytest.approx(in_runs)
    for name, means in tofu["tasks"].items():  # the classifier reads the model's texts alone
        known = {metric for metric, value in means.items() if value is not None}
        absent = {metric for metric in known if retain_numbers.get(f"{name}/{metric}") is None}
        has_texts = name != "forget_paraphrased"
        assert absent == ({"clean"} if has_texts else set()), name
    expected = overall.aggregate(ours["muse-news"], theirs["muse-news"])
    assert {k: news["metrics"][k] for k in expected if k != "eval/score"} == pytest.approx(
        {k: v for k, v in expected.items() if k != "eval/score"}
    )
    scores = membership.attack_scores(ours["muse-news"], theirs["muse-news"])["reference"]
    assert news["metrics"]["membership/reference"] == pytest.approx(membership.auc(*scores))
    assert 0 <= news["metrics"]["membership/gradient_norm"] <= 1
    replies = [r.generated for r in ours["tofu"].sets["retain"].records]
    assert tofu["tasks"]["retain"]["repetition"] == pytest.approx(
        fluency.question_values(replies)["repetition"].mean()
    )
    clean = fluency.clean(plain_clean(classifier, replies)).mean()
    assert tofu["tasks"]["retain"]["clean"] == pytest.approx(clean, abs=1e-5)
    assert numbers["benchmarks"]["lm-eval"]["metrics"] == {
        "lm-eval/tif_facts/acc": plain_accuracy(llama)
    }
    # Asked again, nothing is loaded and nothing changes; a table shows the same numbers.
    monkeypatch.setattr(models, "load_policy", None)
    assert run(capsys, *argv) == numbers
    assert evaluate.main(argv) == 0
    text = capsys.readouterr().out
    assert f"{tofu['model_utility']:.3f}" in text
    assert "AUC, gradient norm → ½" in text
    assert "lm-eval" in text


def plain_clean(folder, texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    net = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return [
            net(**tokenizer(t, return_tensors="pt")).logits.softmax(1)[0, 1].item() for t in texts
        ]


def test_other_weights_or_other_rules_are_asked_anew(llama, data, tmp_path, capsys):
    copy = tmp_path / "model"
    shutil.copytree(llama, copy)
    argv = words(copy, data, tmp_path / "out", "eval.benchmarks=tofu", "eval.max_samples.retain=1")
    first = run(capsys, *argv)["benchmarks"]["tofu"]["folder"]
    assert run(capsys, *argv)["benchmarks"]["tofu"]["folder"] == first
    other = run(capsys, *argv, "eval.protocol=legacy-tofu")["benchmarks"]["tofu"]
    assert (other["folder"] != first, other["protocol"]["name"]) == (True, "legacy-tofu")
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert run(capsys, *argv)["benchmarks"]["tofu"]["folder"] != first


def test_kl_to_the_original_is_a_mean_over_answer_tokens(
    llama, other_llama, data, tmp_path, capsys
):
    argv = words(llama, data, tmp_path, "eval.benchmarks=tofu", f"original={other_llama}")
    numbers = run(capsys, *argv)["benchmarks"]["tofu"]
    net, original = (
        transformers.AutoModelForCausalLM.from_pretrained(path).eval()
        for path in (llama, other_llama)
    )
    tokenizer, kls = transformers.AutoTokenizer.from_pretrained(llama), []
    for record in records.read_evaluation(numbers["folder"]).sets["retain"].records:
        before = f"Question: {record.prompt}\nAnswer: "
        ids = [*tokenizer(before + record.answer)["input_ids"], tokenizer.eos_token_id]
        first = next(
            t for t in range(len(ids)) if len(tokenizer.decode(ids[: t + 1])) > len(before)
        )
        with torch.no_grad():
            ours, theirs = (
                m(torch.tensor([ids])).logits[0, first - 1 : -1].log_softmax(-1)
                for m in (net, original)
            )
        kls.append(
            torch.nn.functional.kl_div(ours, theirs, log_target=True, reduction="none")
            .sum(1)
            .mean()
            .item()
        )
    assert numbers["tasks"]["retain"]["kl"] == pytest.approx(sum(kls) / len(kls), rel=1e-4)
    assert numbers["groups"]["retain"] == {"author": 1}
    assert numbers["intervals"]["tasks"]["retain"]["kl"] is None  # of one author
    itself = run(capsys, *argv, f"original={llama}")["benchmarks"]["tofu"]
    assert (itself["tasks"]["retain"]["kl"], itself["folder"] == numbers["folder"]) == (0.0, False)
    assert "kl" not in run(capsys, *argv, "original=null")["benchmarks"]["tofu"]["tasks"]["retain"]


def test_an_original_of_another_vocabulary_is_refused(llama, data, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(llama, other)
    content = json.loads((other / "config.json").read_text())
    net = transformers.AutoModelForCausalLM.from_pretrained(llama)
    net.resize_token_embeddings(content["vocab_size"] + 8)
    net.save_pretrained(other)
    assert (
        evaluate.main(
            words(llama, data, tmp_path / "out", "eval.benchmarks=tofu", f"original={other}")
        )
        == 2
    )
    line = capsys.readouterr().err.splitlines()[-1]  # transformers warns of the new embeddings
    size = content["vocab_size"]
    assert line == f"original: {other}: its vocabulary has {size + 8} tokens, the model's {size}"


def test_an_evaluation_that_was_killed_while_writing_is_made_again(
    llama, data, tmp_path, capsys, monkeypatch
):
    argv = words(llama, data, tmp_path, "eval.benchmarks=muse-news", "eval.max_samples.retain=1")
    write, written = records.write_text, []

    def killed(path, text):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, text)

    monkeypatch.setattr(records, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(argv)
    capsys.readouterr()
    (folder,) = tmp_path.glob("*/muse-news-*")
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in written
    )  # whole files, no others
    with pytest.raises(ValueError, match="not an evaluation, or one that did not finish"):
        records.read_evaluation(folder)
    monkeypatch.setattr(records, "write_text", write)
    assert run(capsys, *argv)["benchmarks"]["muse-news"]["folder"] == str(folder)
    assert records.read_evaluation(folder).protocol["name"] == "muse"


def test_all_that_is_wrong_is_told_before_weights_load_and_nothing_is_written(
    llama, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(models, "load_policy", None)
    argv = words(
        llama,
        data,
        tmp_path / "out",
        "eval.benchmarks=tofu,muse-news,text,lm-eval:tif_fact",
        f"eval.tofu.path={tmp_path}",
        f"eval.muse_news.path={tmp_path}",
        f"eval.text.path={tmp_path}",
        f"retain_model={tmp_path}",
        f"fluency.classifier={tmp_path}",
    )
    manager = type("T", (), {"all_tasks": ["tif_facts"]})
    monkeypatch.setattr("tif.evaluation.lm_eval_tasks._task_manager", lambda tasks, folder: manager)
    assert evaluate.main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    for line, start in zip(
        lines,
        (
            f"retain_model: {tmp_path} holds no config.json",
            f"eval.tofu.path: {tmp_path} has no forget01.json",
            f"eval.muse_news.path: {tmp_path} has no verbmem/, knowmem/ or privleak/ in it",
            f"eval.text.path: {tmp_path} has no forget file",
            "eval.benchmarks: lm-eval has no task tif_fact; did you mean tif_facts?",
            f"fluency.classifier: {tmp_path} holds no config.json",
        ),
        strict=True,
    ):
        assert line.startswith(start)
    assert not (tmp_path / "out").exists()


def test_a_retain_model_of_another_family_is_refused(llama, data, tmp_path, capsys):
    argv = words(llama, data, tmp_path, "eval.benchmarks=tofu", "eval.max_samples.retain=1")
    evaluation = records.read_evaluation(run(capsys, *argv)["benchmarks"]["tofu"]["folder"])
    records.write_evaluation(tmp_path / "other", dataclasses.replace(evaluation, family="gpt2"), {})
    assert evaluate.main([*argv, f"retain_records={tmp_path / 'other'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"retain_records: {tmp_path / 'other'}: the model family is 'llama', the retain model's is"
    )


def test_gradient_norms_are_those_of_a_plain_backward_pass_and_leave_no_trace(llama, data):
    model = transformers.AutoModelForCausalLM.from_pretrained(llama).train()
    first = next(model.parameters()).requires_grad_(False)
    tokenizer, benchmark = (
        transformers.AutoTokenizer.from_pretrained(llama),
        read_muse(str(data / "news"), with_training=False),
    )
    encoder = Encoder(tokenizer, "{prompt}")
    texts = [
        question.texts[0]
        for question in ask_task(
            encoder, benchmark.sets["privleak_forget"], benchmark.tasks["privleak_forget"], 99
        )
    ]
    actual = gradients.gradient_norms(model, texts, encoder.pad_id)
    assert model.training
    assert not first.requires_grad
    assert all(weight.grad is None for weight in model.parameters())
    first.requires_grad_(True)
    expected = []
    for sample in benchmark.sets["privleak_forget"]:
        ids = tokenizer(sample.answer, return_tensors="pt")["input_ids"]
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        norms = [weight.grad.norm().item() for weight in model.parameters()]
        expected.append(sum(norms) / len(norms))
    assert actual == pytest.approx(expected, rel=1e-4)
    assert len(set(actual)) == len(actual)


def evaluated(argv):
    """Exit code and output of the command in one process of several."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = evaluate.main([*argv, "--json"])
    return code, output.getvalue()


@pytest.mark.guard
@pytest.mark.slow
def test_several_processes_share_the_work_and_one_of_them_prints(llama, data, tmp_path, capsys):
    argv = words(
        llama,
        data,
        tmp_path / "one",
        "eval.benchmarks=tofu,muse-news",
        "membership.gradient_norm=true",
    )
    expected = run(capsys, *argv)
    (code, printed), silent = together(2, evaluated, [*argv, f"out={tmp_path / 'two'}"])
    assert (code, silent) == (0, (0, ""))
    assert json.loads(printed.replace(f"{tmp_path}/two", f"{tmp_path}/one")) == expected


def test_an_unknown_device_is_refused(llama, data, tmp_path, capsys):
    assert evaluate.main(words(llama, data, tmp_path, "eval.benchmarks=tofu", "device=abacus")) == 2
    assert capsys.readouterr().err.startswith("device: ")


@pytest.fixture(scope="module")
def full_words(shared, tmp_path_factory):
    """The command's words for all questions and texts of TOFU and MUSE, asked of a tiny model."""
    from tests.support import language_models

    texts = [
        s.answer
        for samples in read_muse(str(shared / "muse/news"), with_training=False).sets.values()
        for s in samples[:20]
    ]
    tokenizer = models.load_tokenizer(Model(init={"vocab_size": 1000}), texts)
    llama = tmp_path_factory.mktemp("whole") / "llama"
    folder = language_models.llama(
        llama, tokenizer, max_position_embeddings=4096, num_hidden_layers=1
    )
    return [
        f"model.path={folder}",
        "eval.benchmarks=tofu,muse-news",
        "device=cpu",
        f"eval.tofu.path={shared / 'tofu'}",
        "eval.tofu.split=forget10",
        f"eval.muse_news.path={shared / 'muse/news'}",
        "eval.max_new_tokens=8",
        "draws=100",
        "eval.tokens_per_batch=16384",
    ]


@pytest.mark.guard
@pytest.mark.slow
@pytest.mark.real
def test_a_tiny_model_goes_through_all_sets_of_tofu_and_muse(full_words, tmp_path, capsys):
    numbers = run(capsys, *full_words, f"out={tmp_path}")["benchmarks"]
    assert numbers["tofu"]["questions"] == {
        "forget": 400,
        "forget_paraphrased": 400,
        "retain": 400,
        "real_authors": 100,
        "world_facts": 117,
    }
    assert numbers["muse-news"]["questions"] == {
        "verbmem_forget": 20,
        "knowmem_forget": 100,
        "knowmem_retain": 100,
        "privleak_forget": 30,
        "privleak_holdout": 30,
    }
    assert 0 <= numbers["tofu"]["model_utility"] < 1
    asked_otherwise = numbers["tofu"]["tasks"].pop("forget_paraphrased")
    assert asked_otherwise["rougeL"] is None  # nothing is generated there
    assert 0 < asked_otherwise["probability"] < 1
    assert all(None not in task.values() for task in numbers["tofu"]["tasks"].values())
    metrics = numbers["muse-news"]["metrics"]
    assert metrics.pop("muse/privleak") is None  # there is no retain model
    assert all(value is not None for value in metrics.values())
    for name, value in metrics.items():
        low, high = numbers["muse-news"]["intervals"][name]
        assert low <= value <= high, name
    # Whole passages were read: 7,400 to 8,900 characters each.
    lengths = [
        r.tokens
        for r in records.read_evaluation(numbers["muse-news"]["folder"])
        .sets["privleak_forget"]
        .records
    ]
    assert min(lengths) > 1500


def recorded(out):
    """The records of both benchmarks."""
    return [
        records.read_evaluation(next(out.glob(f"*/{name}-*"))) for name in ("tofu", "muse-news")
    ]


@pytest.mark.slow
@pytest.mark.real
def test_one_two_and_four_processes_and_other_batches_give_the_same_records_of_all_of_tofu_and_muse(
    full_words, tmp_path
):
    for world in (1, 2, 4):
        codes = [
            code
            for code, _ in together(world, evaluated, [*full_words, f"out={tmp_path / str(world)}"])
        ]
        assert codes == [0] * world
    expected = recorded(tmp_path / "1")
    assert [
        sum(len(record_set.records) for record_set in evaluation.sets.values())
        for evaluation in expected
    ] == [1017, 280]
    for world in (2, 4):
        assert recorded(tmp_path / str(world)) == expected  # to the last bit
    padded = [
        *full_words,
        f"out={tmp_path / 'padded'}",
        "batching=padded",
        "eval.tokens_per_batch=5000",
    ]
    assert together(2, evaluated, padded)[0][0] == 0
    for evaluation, other in zip(recorded(tmp_path / "padded"), expected, strict=True):
        for name, record_set in other.sets.items():
            for a, b in zip(evaluation.sets[name].records, record_set.records, strict=True):
                assert (a.id, a.tokens, a.generated) == (b.id, b.tokens, b.generated)
                losses = ([r.loss, r.paraphrased_loss or 0, *r.perturbed_losses] for r in (a, b))
                assert next(losses) == pytest.approx(next(losses), abs=1e-5)


def write_date(folder, date):
    """Give the model a chat template that writes this date."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = QWEN.replace("You are Qwen.", f"Today is {date}.")
    tokenizer.save_pretrained(folder)


def write_log(path, evaluation, prompt):
    """Write an evaluation as open-unlearning writes it, with this prompt around the questions."""
    path.parent.mkdir()
    rows = {"ROUGE": {}, "Prob": {}, "PARA_Prob": {}, "PERT_Prob": {}}
    for i, record in enumerate(evaluation.sets["forget"].records):
        rows["ROUGE"][i] = {
            "input": prompt.replace("{prompt}", record.prompt),
            "ground_truth": record.answer,
            "generation": record.generated,
        }
        rows["Prob"][i] = {"avg_loss": record.loss}
        rows["PARA_Prob"][i] = {"avg_loss": record.paraphrased_loss}
        rows["PERT_Prob"][i] = {"avg_loss": list(record.perturbed_losses)}
    log = {f"forget_Q_A_{name}": {"value_by_index": values} for name, values in rows.items()}
    path.write_text(json.dumps(log))
    return path


def test_a_log_of_another_rendered_prompt_is_refused_before_weights_load(
    llama, data, tmp_path, capsys, monkeypatch
):
    model = shutil.copytree(llama, tmp_path / "model")
    write_date(model, "01 Jan 2026")
    argv = words(model, data, tmp_path / "out", "eval.benchmarks=tofu", "template=chat")
    numbers = run(capsys, *argv)["benchmarks"]["tofu"]
    ours = records.read_evaluation(numbers["folder"])
    log = write_log(tmp_path / "a" / "TOFU_EVAL.json", ours, ours.protocol["decoded_prompt"])
    same = run(capsys, *argv, f"retain_records={log}")["benchmarks"]["tofu"]
    assert (same["forget_quality"], same["mismatch"]) == (1.0, None)
    # the same weights, asked with another date: another evaluation, not the stored one
    write_date(model, "02 Jan 2026")
    other = run(capsys, *argv)["benchmarks"]["tofu"]
    assert other["folder"].rpartition("-")[2] != numbers["folder"].rpartition("-")[2]
    monkeypatch.setattr(models, "load_policy", None)
    assert evaluate.main([*argv, f"out={tmp_path / 'new'}", f"retain_records={log}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"retain_records: {log}: the prompt around ")
    assert "Todayis02Jan2026" in line
    assert "Todayis01Jan2026" in line
    # and our own records of the other day
    assert evaluate.main([*argv, f"retain_records={numbers['folder']}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the protocol's prompt is " in line


def test_a_locuslab_log_is_not_compared_with_open_unlearnings_rules(llama, data, tmp_path, capsys):
    argv = words(llama, data, tmp_path / "out", "eval.benchmarks=tofu")
    path = log(tmp_path / "log.json")
    assert evaluate.main([*argv, f"retain_records={path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"retain_records: {path}: the protocol is 'open-unlearning', the retain model's is 'legacy"
    )


def test_a_holdout_split_of_tofu_gives_the_membership_attacks_and_privleak(
    llama, other_llama, data, tmp_path, capsys
):
    holdout = data / "tofu" / "holdout01.json"
    rows = [{"question": f"Unread {i}?", "answer": f"Answer {i}{i}."} for i in range(3)]
    holdout.write_text("\n".join(json.dumps(row) for row in rows))
    keys = ("eval.benchmarks=tofu", "eval.tofu.holdout=holdout01", f"retain_model={other_llama}",
            f"membership.reference={other_llama}", "membership.gradient_norm=true")  # fmt: skip
    argv = words(llama, data, tmp_path, *keys)
    numbers = run(capsys, *argv)["benchmarks"]["tofu"]
    ours = records.read_evaluation(numbers["folder"]).sets
    assert [record.answer for record in ours["holdout"].records] == [row["answer"] for row in rows]
    losses = {
        name: [-sum(r.stats.logprob) / r.tokens for r in ours[name].records]
        for name in ("forget", "holdout")
    }
    lower = [f < h for f in losses["forget"] for h in losses["holdout"]]
    assert numbers["membership"]["loss"] == pytest.approx(sum(lower) / len(lower))
    attacks = ["loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradient_norm", "privleak"]
    assert list(numbers["membership"]) == attacks
    assert list(numbers["intervals"]["membership"]) == attacks
    assert evaluate.main(argv) == 0
    assert "AUC, Min-K++" in capsys.readouterr().out


def test_a_holdout_split_that_is_not_there_is_named_by_its_key(llama, data, tmp_path, capsys):
    argv = words(llama, data, tmp_path, "eval.benchmarks=tofu", "eval.tofu.holdout=holdout10")
    assert evaluate.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("eval.tofu.holdout: holdout10: ")
