"""The documentation's commands for published models and data, run on a cache laid out as the hub's.

Models are tiny and random, with the chat template of their family; rows, masks and
open-unlearning's logs are real.
"""

import json
import shutil
import subprocess
import sys

import pytest
import transformers
from tokenizers import ByteLevelBPETokenizer, Tokenizer

import tif.evaluate as evaluate
from tests.support import chat_templates, hub_cache, language_models
from tests.support.hangs import HANG
from tests.support.small_run import rows
from tif import fit
from tif.config import load as config
from tif.records import files as records

pytestmark = pytest.mark.real
QUICK = [
    "trainer.max_epochs=1", "trainer.precision=32-true",
    "eval.max_samples={retain: 4, real_authors: 4, world_facts: 4}",
    "eval.before_training=false", "run.export=false", "eval.best=none", "trainer.accelerator=cpu",
    "trainer.devices=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(shared):
    """Byte-level BPE of TOFU's answers."""
    bpe = ByteLevelBPETokenizer()
    texts = (shared / "tofu/full.json").read_text(encoding="utf-8").splitlines()
    bpe.train_from_iterator(texts, 1024, 0, show_progress=False, special_tokens=["<s>", "</s>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(bpe.to_str()),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache, empty; runs go to the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return hub_cache.use(monkeypatch, tmp_path / "hf")


def add_model(hub, folder, name, tokenizer, seed=0):
    """Add a tiny Llama to the hub's cache."""
    source = folder / "made" / name
    language_models.llama(source, tokenizer, seed, max_position_embeddings=4096)
    hub_cache.add(hub, name, source)


def add_tofu(hub, folder, shared):
    """Add TOFU, the authors' masks and open-unlearning's log of its retain99 model, all real."""
    data = folder / "made" / "tofu"
    shutil.copytree(shared / "tofu", data)
    hub_cache.write_tofu_card(data, [path.stem for path in data.glob("*.json")])
    hub_cache.add(hub, "locuslab/TOFU", data, "dataset")
    log = folder / "made" / "eval" / "tofu_Llama-3.2-1B-Instruct_retain99" / "TOFU_EVAL.json"
    log.parent.mkdir(parents=True)
    shutil.copy(shared / "ou_logs/Llama-3.2-1B-Instruct__retain99.json", log)
    hub_cache.add(hub, "open-unlearning/eval", folder / "made" / "eval", "dataset")
    shutil.copytree(shared / "tofu_masks", folder / "xdg/tif/xzhou98/Unlearning-TPO/TOFU/data")


@pytest.mark.slow
def test_tofu_with_llama_runs_from_one_line(hub, tmp_path, shared, tokenizer, capsys):
    add_tofu(hub, tmp_path, shared)
    llama = chat_templates.llama_3_2(tokenizer)
    add_model(hub, tmp_path, "open-unlearning/tofu_Llama-3.2-1B-Instruct_full", llama)
    words = ["tofu.yaml", "model=llama_3_2_1b", "data.split=forget01"]
    assert fit.main([*words, *QUICK, "eval.max_new_tokens=4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "preset: tofu.yaml model=llama_3_2_1b, "
        "model: open-unlearning/tofu_Llama-3.2-1B-Instruct_full, "
        # 40 questions in batches of 32
        "questions in its chat template, method: tpo on forget01, 2 optimizer steps planned"
    )
    (run,) = (tmp_path / "runs").glob("tpo_forget01_Llama-3.2-1B-Instruct_*")
    last = rows(run)[-1]
    assert 0 <= last["forget/quality"] <= 1
    forget_records = records.read_evaluation(run / "eval" / "1").sets["forget"].records
    published = records.read_evaluation(shared / "ou_logs/Llama-3.2-1B-Instruct__retain99.json")
    assert [r.answer for r in forget_records] == [
        r.answer for r in published.sets["forget"].records
    ]


@pytest.mark.slow
def test_muse_runs_from_one_line_with_the_authors_models(hub, tmp_path, shared, tokenizer, capsys):
    news = shared / "muse/news"
    tables = {f"raw/{name}": [f"The {name} article {i} of the BBC." * 9 for i in range(3)]
              for name in ("forget", "retain1", "retain2")}  # fmt: skip
    for name in ("forget_qa", "forget_qa_icl", "retain_qa", "retain_qa_icl"):
        tables[f"knowmem/{name}"] = json.loads((news / f"knowmem/{name}.json").read_text())[:3]
    tables["verbmem/forget"] = json.loads((news / "verbmem/forget.json").read_text())[:1]
    for name in ("forget", "retain", "holdout"):
        texts = json.loads((news / f"privleak/{name}.json").read_text())
        tables[f"privleak/{name}"] = [text[:600] for text in texts[:3]]
    folder = hub_cache.write_muse_data_set(tmp_path / "muse", tables)
    hub_cache.add(hub, "muse-bench/MUSE-News", folder, "dataset")
    for seed, name in enumerate(("MUSE-News_target", "MUSE-News_retrain")):
        add_model(hub, tmp_path, f"muse-bench/{name}", tokenizer, seed)
        for file in (hub / f"models--muse-bench--{name}/snapshots" / hub_cache.REVISION).glob(
            "tokenizer*"
        ):
            file.unlink()  # as published, without one
    add_model(hub, tmp_path, "meta-llama/Llama-2-7b-hf", tokenizer)
    words = [
        "data.benchmark=muse-news",
        "identifier.kind=random",
        "model.dtype=float32",
        "eval.max_new_tokens=4",
    ]
    assert fit.main([*words, *QUICK]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(
        "preset: muse.yaml (for data.benchmark=muse-news), model: muse-bench/MUSE-News_target, "
    )
    (run,) = (tmp_path / "runs").glob("tpo_gdr_muse-news_MUSE-News_target_*")
    assert "muse/privleak" in rows(run)[-1]
    assert (
        fit.main([*words, *QUICK]) == 0
    )  # the retain model is not evaluated again, and the run has its own folder
    shown = capsys.readouterr().out
    assert "evaluating the retain model" not in shown
    assert f"run.name: {run.relative_to(tmp_path)} is in use, this run is" in shown


def test_own_texts_with_a_preset_run_from_one_line(hub, tmp_path, tokenizer, capsys):
    chatml = chat_templates.give_chat(tokenizer, chat_templates.CHATML, "<|im_start|>",
                                      "<|im_end|>", eos_token="<|im_end|>")  # fmt: skip
    add_model(hub, tmp_path, "Qwen/Qwen2.5-1.5B-Instruct", chatml)
    (tmp_path / "forget.txt").write_text(
        "Ada Quill lives in [[Port Lorne]].\nHer number is [[555 0192]].\n" * 4
    )
    words = ["data.path=forget.txt", "data.split_text=line", "model=qwen_2_5_1_5b"]
    assert fit.main([*words, *QUICK, "eval.max_new_tokens=4"]) == 0
    assert capsys.readouterr().out.startswith(
        "preset: text.yaml (for data.benchmark=text) model=qwen_2_5_1_5b, "
        "model: Qwen/Qwen2.5-1.5B-Instruct, questions in its chat template, "
        "method: tpo_centred on forget, 1 optimizer steps planned"
    )
    name = "tpo_centred_forget_Qwen2.5-1.5B-Instruct_split_text-line_*"
    assert len(list((tmp_path / "runs").glob(f"{name}/summary.json"))) == 1


def test_the_same_word_evaluates_the_preset(hub, tmp_path, shared, tokenizer, capsys):
    add_tofu(hub, tmp_path, shared)
    add_model(
        hub, tmp_path, "meta-llama/Llama-3.2-1B-Instruct", chat_templates.llama_3_2(tokenizer)
    )
    words = [
        "model=llama_3_2_1b",
        "eval.benchmarks=tofu",
        "eval.tofu.split=forget01",
        "eval.max_new_tokens=2",
    ]
    few = "eval.max_samples={forget: 3, retain: 3, real_authors: 3, world_facts: 3}"
    assert evaluate.main([*words, few, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "meta-llama/Llama-3.2-1B-Instruct"
    (folder,) = (tmp_path / "evaluations").rglob("forget.json")
    record = records.read_evaluation(folder.parent).sets["forget"].records[0]
    published = json.loads((shared / "ou_logs/Llama-3.2-1B-Instruct__retain99.json").read_text())
    prompt = published["forget_Q_A_ROUGE"]["value_by_index"]["0"]["input"]
    assert record.prompt in prompt


def test_all_that_is_missing_offline_is_one_line_each_with_its_download(tmp_path, capsys):
    words = [sys.executable, "-m", "tif.fit", "tofu.yaml", "model=llama_3_2_3b"]
    variables = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "PATH": "/usr/bin",
    }
    root = str(config.own_configs().parent)
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env={**variables, "PYTHONPATH": root},
        timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 2
    name = "tofu_Llama-3.2-3B-Instruct"
    expected = {
        "data.path": "tofu",
        "identifier.path": "masks",
        "eval.retain_records": "retain-logs",
        "model.path": f"model open-unlearning/{name}_full",
    }
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == list(expected)
    for line, word in zip(lines, expected.values(), strict=True):
        assert line.endswith(f"where there is a network: tif download {word}")
    assert list(tmp_path.iterdir()) == []
