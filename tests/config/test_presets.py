"""Which file a run begins with, what model=NAME means, and what follows from both."""

import re

import pytest
import yaml

from tests.support.published_shapes import SHAPES
from tif.bench.settings import BenchSettings
from tif.config import files, presets
from tif.config import load as config
from tif.config.command_keys import Evaluate
from tif.config.errors import ConfigError
from tif.config.layers import list_variants
from tif.config.schema import Config

PRESETS = files.list_model_presets()
# arXiv 2506.03142's best beta (xzhou98/Unlearning-TPO TOFU/README.md), as DESIGN section 5 has it
BEST_BETA = {
    ("llama_2_7b_chat", "forget01"): 0.32, ("llama_2_7b_chat", "forget05"): 0.32,
    ("llama_2_7b_chat", "forget10"): 0.23, ("llama_3_2_3b", "forget01"): 0.30,
    ("llama_3_2_3b", "forget05"): 0.27, ("llama_3_2_3b", "forget10"): 0.19,
}  # fmt: skip
PUBLISHED = {
    "llama_2_7b_chat": "Llama-2-7b-chat-hf", "llama_3_1_8b": "Llama-3.1-8B-Instruct",
    "llama_3_2_1b": "Llama-3.2-1B-Instruct", "llama_3_2_3b": "Llama-3.2-3B-Instruct",
}  # fmt: skip
NO_QUALITY = ["eval.forget_quality=false"]


def load(*words):
    """Return what tif.fit would run for these words, and the files that its first line names."""
    all_words, first = presets.complete_words(words)
    return config.load(all_words), first


def refusal(*words):
    with pytest.raises(ConfigError) as caught:
        load(*words)
    return str(caught.value)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ([], "quickstart.yaml"),
        (["trainer.max_epochs=2"], "quickstart.yaml"),
        (["loss/npo.yaml"], "quickstart.yaml"),
        (["stage=target"], "quickstart.yaml"),
        (["data.benchmark=fictitious"], "quickstart.yaml"),
        (["data.benchmark=fictitious", "model=smollm2_135m"], "fictitious.yaml"),
        (["data.benchmark=tofu", "model=smollm2_135m"], "tofu.yaml"),
        (["data.path=locuslab/TOFU", "model=smollm2_135m", "loss/npo.yaml"], "tofu.yaml"),
        (["data.benchmark=muse-books"], "muse.yaml"),
        (["data.path=muse-bench/MUSE-News"], "muse.yaml"),
        (["data.benchmark=lume", "data.path=x"], "lume.yaml"),
        (["data.benchmark=text", "data.path=x", "model.path=org/m"], "text.yaml"),
        (["data.path=my_texts", "model.path=org/m"], "text.yaml"),
    ],
)
def test_without_a_file_the_data_names_it_and_the_first_line_says_so(words, file):
    _, first = load(*words)
    assert first.startswith(f"{file} (")
    for part in words:
        if part.endswith(".yaml") or part.startswith("model="):
            assert part in first


def test_only_the_quickstart_has_the_quickstarts_settings():
    """The learning rate of a tiny Llama must not reach a model of one's own."""
    assert load()[0].optimizer.lr == 5e-4
    for words in (["data.benchmark=text", "data.path=x", "model.path=org/m"],
                  ["data.benchmark=tofu", "model=smollm2_360m"],
                  ["data.benchmark=muse-news"]):  # fmt: skip
        cfg = load(*words)[0]
        assert cfg.optimizer.lr == 1e-5
        assert cfg.model.init == {}
        assert cfg.trainer.accelerator == "auto"
        assert cfg.run.name != "quickstart"


def test_a_model_without_data_is_asked_what_to_forget():
    for word in ("model.path=org/model", "model=smollm2_135m"):
        assert refusal(word).startswith("data.benchmark: which data is the model to forget? want ")


def test_a_file_of_ones_own_is_the_whole_experiment(tmp_path):
    file = write(tmp_path / "mine.yaml", "data: {benchmark: text, path: x}\nmodel: {path: org/m}\n")
    cfg, first = load(file, *NO_QUALITY)
    assert first == file
    assert cfg.loss == Config().loss


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_names_a_hub_model_a_prompt_format_and_a_lora_variant(preset):
    folder = files.own_configs() / "model"
    content = yaml.safe_load((folder / f"{preset}.yaml").read_text())
    assert content["model"]["base"].count("/") == 1
    assert content["data"]["template"]
    assert "lora" in list_variants(preset)
    if preset not in ("smollm2_135m", "smollm2_360m"):  # a CPU is enough for these
        assert list_variants(preset) == ["24gb", "40gb", "lora"]
        assert content["data"]["max_tokens_per_batch"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("variant", ["", ":lora", ":40gb", ":24gb"])
def test_every_preset_and_variant_makes_a_run(preset, variant):
    if "gb" in variant and preset in ("smollm2_135m", "smollm2_360m"):
        assert "no such variant; " in refusal("data.benchmark=tofu", f"model={preset}{variant}")
        return
    cfg, _ = load("data.benchmark=tofu", f"model={preset}{variant}")
    if variant == ":lora":
        assert (cfg.model.lora.rank, cfg.optimizer.lr) == (16, 1e-4)
    target = config.stage(cfg, "target")
    assert target.model.path == cfg.model.base
    assert target.model.dtype == cfg.model.dtype


def test_the_shapes_of_the_tests_are_those_of_all_presets():
    assert sorted(SHAPES) == PRESETS


def test_the_preset_stands_between_the_experiments_file_and_the_next(tmp_path):
    later = write(tmp_path / "later.yaml", "data: {max_tokens_per_batch: 128}\n")
    cfg = load("tofu.yaml", later, "model=llama_2_7b_chat", "model.dtype=float32")[0]
    assert (cfg.data.max_tokens_per_batch, cfg.model.dtype) == (128, "float32")
    assert cfg.data.template == "[INST] {prompt} [/INST]{answer}"


@pytest.mark.parametrize("split", ["forget01", "forget05", "forget10"])
@pytest.mark.parametrize("preset", PUBLISHED)
def test_tofu_takes_the_published_target_and_its_retain_models_log(preset, split):
    cfg = load("tofu.yaml", f"model={preset}", f"data.split={split}")[0]
    retain = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}[split]
    name = f"tofu_{PUBLISHED[preset]}"
    assert cfg.model.path == f"open-unlearning/{name}_full"
    assert cfg.eval.retain_records == f"open-unlearning/eval/{name}_{retain}/TOFU_EVAL.json"
    assert cfg.identifier.path == f"xzhou98/Unlearning-TPO/TOFU/data/{split}_with_common_words_gpt"
    assert (cfg.optimizer.lr, cfg.trainer.max_epochs, cfg.data.batch_size) == (1e-5, 10, 32)
    local = load(
        "tofu.yaml",
        f"model={preset}",
        f"data.split={split}",
        "tofu.retain_logs=/logs",
        "tofu.masks=/m",
    )[0]
    assert local.eval.retain_records == f"/logs/{name}_{retain}/TOFU_EVAL.json"
    assert local.identifier.path == f"/m/{split}_with_common_words_gpt"


@pytest.mark.parametrize(("case", "beta"), BEST_BETA.items())
def test_tpo_takes_the_papers_best_beta_of_model_and_split(case, beta):
    preset, split = case
    cfg, _ = load("tofu.yaml", f"model={preset}", f"data.split={split}")
    assert cfg.loss.beta == beta
    assert (
        load("tofu.yaml", f"model={preset}", f"data.split={split}", "loss.beta=0.5")[0].loss.beta
        == 0.5
    )


def test_a_model_without_a_published_beta_gets_the_middle_of_the_papers():
    assert load("tofu.yaml", "model=llama_3_2_1b")[0].loss.beta == 0.3
    assert (
        load("text.yaml", "data.path=x", "loss/tpo.yaml", "model=llama_2_7b_chat")[0].loss.beta
        == 0.3
    )
    assert load("tofu.yaml", "model=llama_3_2_1b", "loss.beta=0.2")[0].loss.beta == 0.2


@pytest.mark.parametrize("corpus", ["News", "Books"])
def test_muse_takes_the_authors_models_and_their_tokenizer(corpus):
    cfg = load(f"data.benchmark=muse-{corpus.lower()}")[0]
    assert cfg.data.path == f"muse-bench/MUSE-{corpus}"
    assert cfg.model.path == f"muse-bench/MUSE-{corpus}_target"
    assert cfg.eval.retain_model == f"muse-bench/MUSE-{corpus}_retrain"
    assert cfg.model.tokenizer == "meta-llama/Llama-2-7b-hf"
    chosen = load(f"data.benchmark=muse-{corpus.lower()}", "model=smollm2_135m")[0]
    assert (chosen.model.path, chosen.eval.retain_records, chosen.eval.retain_model) == (
        "target",
        "retain",
        None,
    )
    assert chosen.model.tokenizer is None
    mine = load(f"data.benchmark=muse-{corpus.lower()}", "model.path=/my/model", *NO_QUALITY)[0]
    assert (mine.model.path, mine.model.tokenizer, mine.eval.retain_model) == (
        "/my/model",
        None,
        None,
    )


def test_names_of_runs_come_from_method_data_and_model():
    names = {
        load("tofu.yaml", "model=llama_3_2_3b")[0].run.name: "tpo_forget10_Llama-3.2-3B-Instruct",
        load("tofu.yaml", "model=llama_3_2_3b", "loss/npo_gdr.yaml",
             "data.split=forget01")[0].run.name:
            "npo_gdr_forget01_Llama-3.2-3B-Instruct",
        load("tofu.yaml", "model=phi_1_5", "loss/npo.yaml",
             "loss.on=uw")[0].run.name: "npo_uw_forget10_phi-1_5",
        load("data.path=a/my notes.txt",
             "model.path=/models/qwen")[0].run.name: "tpo_centred_my-notes_qwen",
        load("data.benchmark=muse-news", "data.split=scal_2")[0].run.name:
            "tpo_gdr_muse-news_scal_2_MUSE-News_target",
        load("data.benchmark=lume", "data.path=x", "data.split=task2",
             "model=smollm2_135m")[0].run.name:
            "tpo_gdr_lume_task2_SmolLM2-135M-Instruct",
        load("data.benchmark=tofu", "model=phi_1_5", "run.name=mine")[0].run.name: "mine",
        load()[0].run.name: "quickstart",
    }  # fmt: skip
    assert list(names) == list(names.values())


@pytest.mark.parametrize(("words", "name"), [
    (["optimizer.lr=1e-4", "run.seed=3"], "quickstart_lr1e-4_seed3"),
    (["optimizer.lr=0.0001"], "quickstart_lr1e-4"),
    (["optimizer={lr: 1e-4}"], "quickstart_lr1e-4"),
    (["optimizer.lr=5e-4", "run.seed=0"], "quickstart"),  # as the file has them
    (["loss/npo.yaml", "trainer.max_epochs=5"], "quickstart_npo_max_epochs5"),
    (["loss.lpl_baseline=mean"], "quickstart_lpl_baseline-mean"),
    (["stages.target.optimizer.lr=1e-2", "data.fictitious.seed=3"],
     "quickstart_target-optimizer-lr0.01_fictitious-seed3"),
    (["model.lora.rank=4", "eval.kl=true"], "quickstart_lora-rank4_kl-true"),
    (["run.folder=elsewhere", "run.resume=never", "run.keep_checkpoints=1",
      "logger.wandb.enabled=true"], "quickstart"),
    (["optimizer.lr=1e-4", "run.name=mine"], "mine"),
    (["tofu.yaml", "model=llama_3_2_3b:24gb", "loss.beta=0.2"],
     "tpo_forget10_Llama-3.2-3B-Instruct_24gb_beta0.2"),
    (["data.path=my_texts", "model.path=org/m", "optimizer.lr=2e-5"],
     "tpo_centred_my_texts_m_lr2e-5"),
])  # fmt: skip
def test_a_runs_name_tells_what_the_words_change(words, name):
    assert load(*words)[0].run.name == name


def test_a_run_of_a_sweep_or_of_a_runs_config_keeps_its_name(tmp_path):
    for name in ("sweep/lr=1/seed0", "quickstart_lr1e-4"):
        file = write(
            tmp_path / "config.yaml",
            config.to_yaml(load(f"run.name={name}", "optimizer.lr=1e-4")[0]),
        )
        assert load(file)[0].run.name == name
    assert load(file, "loss.beta=1")[0].run.name == "quickstart_lr1e-4_beta1"


def test_no_text_to_forget_stands_in_a_runs_name():
    names = set()
    for word in ("Basil", "Kuwait"):
        names.add(load("identifier.kind=words", f"identifier.words=[{word}]")[0].run.name)
    assert len(names) == 2
    assert all(re.fullmatch(r"quickstart_kind-words_words-[0-9a-f]{6}", name) for name in names)
    assert re.fullmatch(
        "quickstart_template-[0-9a-f]{6}", load("data.template=Basil {prompt}")[0].run.name
    )


def test_names_of_many_changes_are_short_and_differ():
    words = [f"model.init.num_hidden_layers={n}" for n in range(1, 3)]
    more = [
        "eval.max_samples.retain=6",
        "eval.max_new_tokens=8",
        "stages.target.optimizer.lr=1e-2",
        "loss.beta=0.5",
    ]
    names = [load(*more, word)[0].run.name for word in words]
    assert len(set(names)) == 2
    start = "quickstart_max_samples-retain6_max_new_tokens8_"
    assert all(re.fullmatch(f"{start}[0-9a-f]{{6}}", name) for name in names)
    assert max(map(len, names)) <= 64
    assert load(*more, words[0])[0].run.name == names[0]


def test_a_derived_name_is_one_that_its_own_config_may_hold(tmp_path):
    for letter, words in (("é", []), ("語", ["loss.beta=0.5"]), ("x", ["optimizer.lr=1e-4"])):
        name = letter * 40
        cfg = load(f"data.path=a/{name}.txt", f"model.path=org/{name}", *words)[0]
        file = write(tmp_path / "config.yaml", config.to_yaml(cfg))
        assert load(file)[0].run.name == cfg.run.name
        assert len(cfg.run.name.encode()) <= 97  # of 100: a name in use gets -2, -3, ...
    file = write(
        tmp_path / "mine.yaml", f"include: [quickstart.yaml]\nrun: {{name: {'y' * 100}}}\n"
    )
    assert load(file)[0].run.name == "y" * 100
    assert len(load(file, "loss.beta=1")[0].run.name) <= 97


def test_another_kind_of_identifier_does_not_read_the_masks_of_tofu():
    words = ["data.benchmark=tofu", "model=smollm2_135m"]
    assert load(*words)[0].identifier.path.endswith("/forget10_with_common_words_gpt")
    listed = load(*words, "identifier.kind=words", "identifier.words=[Basil]")[0].identifier
    assert (listed.kind, listed.path) == ("words", None)
    assert (
        load(*words, "identifier.kind=words", "identifier.path=mine.txt")[0].identifier.path
        == "mine.txt"
    )


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (files.own_configs() / "loss").glob("*.yaml"))
)
def test_a_method_is_called_as_its_file_in_configs_loss_with_what_it_does_on_retain_samples(name):
    cfg = config.load(["base.yaml", f"loss/{name}.yaml", "model.path=org/m", "data.train=forget",
                       *NO_QUALITY,
                       *(["data.train=full"] if name == "finetune" else [])])  # fmt: skip
    same = {"tpo_released": "tpo", "altpo": "dpo_gdr", "pdu": "pdu_gdr",
            "satimp": "satimp_gdr", "tpo_recommended": "tpo_centred_gdr",
            "idk": "idk_gdr", "wga": "wga_gdr", "tif": "guess_uw_klr",
            "etw": "etw_gdr", "gap": "gap_gdr", "palu": "palu_uw_gdr", "tnpo": "tnpo_gdr",
            "wtnpo": "tnpo_gdr"}  # fmt: skip
    assert presets.method_name(cfg.loss, cfg.data.train) == same.get(name, name)


RECIPE = config.load(["quickstart.yaml", "loss/tpo_recommended.yaml"]).loss


@pytest.mark.parametrize("words", [
    ["tofu.yaml", "model=smollm2_135m"], ["fictitious.yaml", "model=smollm2_135m"],
    ["text_finetuned.yaml", "data.path=folder"], ["quickstart.yaml", "loss.lpl_baseline=mean"],
])  # fmt: skip
def test_what_is_recommended_is_one_file_that_every_example_takes(words):
    assert config.load(presets.complete_words(words)[0]).loss == RECIPE
    assert (RECIPE.lpl_baseline, RECIPE.retain) == ("mean", "ce")


def test_a_preset_beside_another_model_is_refused():
    assert "makes its own model (model.init); want a file that takes one" in refusal(
        "quickstart.yaml", "model=smollm2_135m")  # fmt: skip


def test_a_finished_runs_config_is_not_given_another_model_silently(tmp_path):
    for words in (["tofu.yaml", "model=smollm2_360m"], ["data.path=x", "model=smollm2_360m"]):
        text = config.to_yaml(load(*words)[0])
        file = write(tmp_path / "config.yaml", text)
        assert config.load([file]).model.base == "HuggingFaceTB/SmolLM2-360M-Instruct"
        line = refusal(file, "model=qwen_3_4b")
        assert line.startswith("model=qwen_3_4b: the configuration has another model, ")
        assert "SmolLM2-360M-Instruct" in line


def test_what_cannot_be_started_is_one_line_with_the_ways_out():
    (line,) = refusal("data.benchmark=tofu").splitlines()
    assert line.startswith(
        "model.base: the stages start from it, got null; want model=NAME (a preset)"
    )
    (line,) = refusal("data.benchmark=tofu", "model.path=/my/target").splitlines()
    assert line.startswith(
        "eval.retain_records: the retain model is made from model.base, got null; want "
    )
    cfg = load("data.benchmark=tofu", "model.path=/my/target", *NO_QUALITY)[0]
    assert (cfg.model.path, cfg.stages) == ("/my/target", {})


@pytest.mark.parametrize(
    ("word", "line"),
    [
        (
            "model=llama_3_2_3",
            "no preset of that name; did you mean llama_3_2_3b?; want one of gemma_2_2b, ",
        ),
        ("model=phi_1_5:24", "no such variant; did you mean 24gb?; phi_1_5 has 24gb, 40gb, lora"),
        ("model=/a/folder", "a folder or hub name is given as model.path="),
    ],
)
def test_a_wrong_preset_is_one_line_with_those_there_are(word, line):
    (actual,) = refusal("data.benchmark=tofu", word).splitlines()
    assert actual.startswith(f"{word}: ")
    assert line in actual


def test_the_same_word_names_the_model_in_other_commands():
    cfg = config.read(Evaluate, ["model=llama_2_7b_chat", "eval.benchmarks=tofu"])
    assert (cfg.model.path, cfg.template) == (
        "meta-llama/Llama-2-7b-chat-hf",
        "[INST] {prompt} [/INST]{answer}",
    )
    bench = config.read(BenchSettings, ["model=llama_2_7b_chat:24gb", "what=memory"])
    assert (bench.model.path, bench.model.lora.rank) == ("meta-llama/Llama-2-7b-chat-hf", 16)


WRONG_FILES = [
    ("loss: {beta: '${choose:${data.splat},{a: 1},2}'}", "data.splat"),
    ("loss: {beta: '${choose:${data.split},{null: many},2}'}", "many"),
    ("include: loss/tpo.yaml", "include: want a list of files"),
    ("include: [loss/tpoo.yaml]", "loss/tpoo.yaml: no such file here or among tif's own configs"),
    ("include: [odd.yaml]", "include: want a list of files, none that includes itself"),
    ("variants: {lora: {}}", "odd.yaml: variants.lora: unknown key"),
]


@pytest.mark.parametrize(("text", "line"), WRONG_FILES)
def test_a_file_whose_entries_have_another_form_is_named(text, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "odd.yaml", text)
    assert line in refusal("odd.yaml", "model.path=org/m", *NO_QUALITY)


def test_a_value_is_chosen_by_the_last_word_on_another_key_and_loses_to_what_comes_later(tmp_path):
    file = write(
        tmp_path / "x.yaml",
        "model: {path: org/m}\n"
        "loss: {beta: '${choose:${data.split},"
        "{forget01: 0.7, forget05: ${choose:${run.seed},{3: 0.1},0.2}},0.5}'}\n",
    )
    for words, beta in (
        ([], 0.5), (["data.split=forget10"], 0.5), (["data.split=forget01"], 0.7),
        (["data.split=forget05"], 0.2), (["data.split=forget05", "run.seed=3"], 0.1),
        (["data.split=forget01", "loss.beta=0.9"], 0.9),
    ):  # fmt: skip
        assert load(file, *NO_QUALITY, *words)[0].loss.beta == beta


def test_a_presets_keys_for_a_benchmark_come_before_those_of_the_variant():
    """phi_1_5.yaml: stages at 2e-5 on TOFU; SmolLM2: LoRA's learning rate, 1e-4, not TOFU's."""
    assert load("tofu.yaml", "model=phi_1_5")[0].stages["target"]["optimizer"]["lr"] == 2e-5
    assert (
        load("lume.yaml", "model=phi_1_5", "data.path=x")[0].stages["target"]["optimizer"]["lr"]
        == 1e-5
    )
    assert load("tofu.yaml", "model=smollm2_135m")[0].optimizer.lr == 1.5e-5
    assert load("tofu.yaml", "model=smollm2_135m:lora")[0].optimizer.lr == 1e-4
    assert load("tofu.yaml", "model=smollm2_135m:lora")[0].data.max_retain == 300
    assert "no such variant" in refusal("tofu.yaml", "model=smollm2_135m:tofu")
