"""Runs with the rows of a GPU and a head in chunks, on a CPU (TIF_ROWS=cuda): equal losses."""

import pathlib

import pytest
import torch
import transformers

from tests.support import process_groups, small_run, tiny_models
from tif import fit
from tif.scoring import lm_head, token_scores
from tif.training import prepare

LOSSES = sorted(
    path.stem for path in (pathlib.Path(__file__).parents[2] / "configs/loss").glob("*.yaml")
)
# 40 samples of about 40 answer tokens in a batch: more than 1,024, whose logits are held at once.
WORDS = [
    "run.name=run",
    "data.fictitious.authors=20",
    "data.fictitious.questions_per_author=8",
    "data.fictitious.forget_share=0.5",
    "data.batch_size=40",
    "trainer.max_epochs=1",
    "optimizer.lr=1e-4",
    "optimizer.warmup_epochs=0",
    "eval.enabled=false",
    "eval.forget_quality=false",
    "run.export=false",
    "run.keep_checkpoints=0",
]
LORA = ["model.lora.rank=4", "model.lora.dropout=0"]
ALTERNATES = ["loss.alternates.count=3", "loss.alternates.max_new_tokens=16"]
SMALL_OPT = {
    "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 512, "word_embed_proj_dim": 32, "vocab_size": 400,
}  # fmt: skip
CASES = {
    **{name: [f"loss/{name}.yaml"] for name in LOSSES if name != "finetune"},
    **{
        f"{name}, adapters": [f"loss/{name}.yaml", *LORA]
        for name in ("dpo", "kto", "altpo", "npo_klr", "tpo")
    },
    "rmu": ["loss/rmu.yaml", "loss.rmu.layer=0"],
    "altpo": ["loss/altpo.yaml", *ALTERNATES],
    "altpo, adapters": ["loss/altpo.yaml", *ALTERNATES, *LORA],
    "tpo, checkpointing": ["loss/tpo.yaml", "model.gradient_checkpointing=true"],
    "tpo, bf16-mixed": ["loss/tpo.yaml", "trainer.precision=bf16-mixed"],
}
QUICK = ("tpo", "rmu")
WHOLE_DISTRIBUTIONS = (
    "ceu", "etw", "klr", "muse_logit_npo", "palu", "pdu", "rmu", "tif", "undial", "whp",
)  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        c if c in QUICK else pytest.param(c, marks=[pytest.mark.slow, pytest.mark.guard])
        for c in CASES
    ],
)
def test_a_run_with_the_rows_of_a_gpu_has_the_losses_of_one_with_those_of_a_cpu(
    case, finished_run, tmp_path, monkeypatch
):
    model, losses, sizes = finished_run.target / "model", {}, {}
    scores_of_logits = lm_head.scores_of_logits

    def note_size(logits, targets):
        sizes[kind].add(len(logits))
        return scores_of_logits(logits, targets)

    for module in (lm_head, token_scores):
        monkeypatch.setattr(module, "scores_of_logits", note_size)
    for kind in ("cpu", "cuda"):
        sizes[kind] = set()
        monkeypatch.setenv("TIF_ROWS", kind)
        words = [
            "base.yaml",
            *CASES[case],
            *WORDS,
            f"model.path={model}",
            f"run.folder={tmp_path / kind}",
        ]
        assert fit.main(words) == 0
        losses[kind] = [
            row for row in small_run.rows(tmp_path / kind / "run") if "train/loss" in row
        ]
    assert len(losses["cuda"]) == 2
    tolerance = {"rel": 0.02, "abs": 0.02} if "bf16" in case else {"rel": 1e-3, "abs": 1e-4}
    for actual, expected in zip(losses["cuda"], losses["cpu"], strict=True):
        for name in expected:
            if name.startswith("train/"):
                assert actual[name] == pytest.approx(expected[name], **tolerance), name
    assert max(sizes["cpu"]) < lm_head.CHUNK_TOKENS
    is_in_chunks = lm_head.CHUNK_TOKENS in sizes["cuda"]
    assert is_in_chunks or any(name in case for name in WHOLE_DISTRIBUTIONS)


def run(folder, *words):
    """Return the losses of a run's steps."""
    assert fit.main(["base.yaml", *WORDS, f"run.folder={folder}", *words]) == 0
    return [row["train/loss"] for row in small_run.rows(folder / "run") if "train/loss" in row]


@pytest.fixture
def opt(tmp_path, tokenizer):
    """A folder of an OPT: packed samples see each other unless attention runs one by one."""
    model = tiny_models.spread(
        transformers.OPTForCausalLM(transformers.OPTConfig(**SMALL_OPT, dropout=0.0))
    )
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "opt")
    return f"model.path={tmp_path / 'opt'}"


def test_opt_loses_the_same_where_a_gpu_would_pack_its_samples_so_that_they_see_each_other(
    opt, tmp_path, monkeypatch, capsys
):
    expected = run(tmp_path / "cpu", "loss/tpo.yaml", opt)
    monkeypatch.setenv("TIF_ROWS", "cuda")
    capsys.readouterr()
    assert run(tmp_path / "cuda", "loss/tpo.yaml", opt) == pytest.approx(expected, rel=1e-3)
    assert (
        "rows are padded: OPTForCausalLM gives other scores in packed rows (by "
        in capsys.readouterr().out
    )


def test_packed_rows_that_would_change_its_scores_are_refused(opt, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TIF_ROWS", "cuda")
    words = [
        "base.yaml",
        "loss/tpo.yaml",
        opt,
        "data.batching=packed",
        *WORDS,
        f"run.folder={tmp_path}",
    ]
    assert fit.main(words) == 2
    assert "data.batching: packed, but OPTForCausalLM gives other scores" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_rows_are_chosen_by_the_model_in_its_place_and_precision(
    precision, finished_run, tmp_path, monkeypatch
):
    events = []
    place = prepare.place_model
    monkeypatch.setattr(
        prepare, "place_model", lambda *args: events.append("placed") or place(*args)
    )

    def choose(wanted, model, texts):
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        events.append((wanted, next(model.parameters()).dtype, dtype, max(map(len, texts)) > 30))
        return "padded"

    monkeypatch.setattr(prepare, "choose_batching", choose)
    run(
        tmp_path,
        "loss/tpo.yaml",
        f"model.path={finished_run.target / 'model'}",
        f"trainer.precision={precision}",
    )
    weights, autocast = (
        (torch.float32, torch.bfloat16) if "mixed" in precision else (torch.bfloat16, None)
    )
    assert events == ["placed", ("auto", weights, autocast, True)]


def choose_by_rank():
    """Return what each process trains with where their probes would differ."""
    from tif.config import load
    from tif.training.plan import plan_run
    from tif.utils import distributed

    class NoData:
        items, retain = (), None

    plan = plan_run(load.load(["quickstart.yaml", *small_run.SMALL, "eval.enabled=false"]))
    prepare.choose_batching = lambda *_: ("packed", "padded")[distributed.rank()]
    return prepare.choose_rows(plan, None, None, NoData)


@pytest.mark.slow
def test_all_processes_train_with_the_rows_of_the_first():
    assert process_groups.together(2, choose_by_rank) == ["packed", "packed"]
