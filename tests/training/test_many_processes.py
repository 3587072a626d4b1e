"""DDP and FSDP2 on the CPU with two and four processes: training, evaluation, export, stops."""

import os
import shutil
import signal

import pytest
import safetensors.torch
import torch
import transformers

from tests.support import killed_processes
from tests.support.hangs import wait_until
from tests.support.interrupted_runs import LORA, assert_same_outcome, run_words
from tests.support.small_run import finished, rows
from tif.models import load as models
from tif.records import files as records
from tif.records import run_folder
from tif.training.checkpoints import list_checkpoints

pytestmark = pytest.mark.slow
# `packed` and `padded` differ in the last bits; all here are padded, as shards are.
SLOW = [
    "loss.forget=tests.support.slow_loss:lpl",
    "stages.target.loss.forget=ce",
    "data.batching=padded",
    "stages.target.data.batching=auto",
]
KL = ["loss.retain=kl"]
ALTPO = [
    "loss.forget=dpo", "loss.on=all", "loss.preserve=none", "loss.alternates.kind=generated",
    "loss.alternates.count=2",
    "loss.alternates.max_new_tokens=8",
]  # fmt: skip
WHP = ["loss.forget=whp", "loss.on=all", "loss.preserve=none", "loss.whp=5", "loss.whp_epochs=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    shutil.copytree(finished(tmp_path_factory).runs / "stages", folder / "stages")
    return folder


@pytest.fixture(scope="module")
def where():
    return killed_processes.context()


def undisturbed_run(where, folder, name, processes, *more, **keys):
    """A run by that name, made once."""
    words = run_words(folder, name, *SLOW, *more)
    if not (folder / name / run_folder.SUMMARY_FILE).exists():
        assert killed_processes.fit_together(where, words, processes, **keys) == [0] * processes
    return folder / name


def weights(folder):
    return safetensors.torch.load_file(folder / "model" / "model.safetensors")


@pytest.mark.guard
@pytest.mark.parametrize(
    ("strategy", "processes", "more"),
    [
        ("ddp", 2, []), ("ddp", 4, []), ("fsdp2", 2, []), ("fsdp2", 4, []), ("fsdp2", 2, KL),
        ("fsdp2", 2, [*LORA[:1], *LORA[2:], *KL]),
        ("fsdp2", 2, ["eval.kl=true", "loss.lpl_baseline=mean"]),
        ("fsdp2", 2, ["loss.forget=undial"]), ("fsdp2", 2, ALTPO), ("ddp", 2, WHP),
        ("ddp", 2, [*LORA[:1], *LORA[2:], *WHP]),
    ],
)  # fmt: skip
def test_any_number_of_processes_ends_with_the_same_model_and_numbers(
    where, folder, strategy, processes, more
):
    kind = "-".join(word.partition("=")[0].rpartition(".")[2] for word in more)
    alone = undisturbed_run(where, folder, f"alone-{kind}", 1, *more)
    together = undisturbed_run(
        where,
        folder,
        f"{strategy}-{processes}-{kind}",
        processes,
        f"trainer.strategy={strategy}",
        *more,
    )
    expected, actual = weights(alone), weights(together)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name], value, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    for row, other in zip(rows(alone), rows(together), strict=True):
        assert row.keys() == other.keys()
        smooth = [k for k in row if "probability" in k or "train" in k or k.endswith("/kl")]
        assert [other[k] for k in smooth] == pytest.approx(
            [row[k] for k in smooth], rel=1e-3, abs=1e-4
        )
    model = transformers.AutoModelForCausalLM.from_pretrained(together / "model")
    gives_the_recorded_losses(model, together)
    assert (
        model.get_output_embeddings().weight is model.get_input_embeddings().weight
    )  # tied, as it was


@pytest.mark.guard
def test_four_bits_in_two_processes_log_what_one_logs(where, folder):
    few = [*LORA[:1], *LORA[2:], "model.quantize=nf4"]
    alone = undisturbed_run(where, folder, "nf4-alone", 1, *few)
    together = undisturbed_run(where, folder, "nf4-two", 2, "trainer.strategy=ddp", *few)
    for row, other in zip(rows(alone), rows(together), strict=True):
        smooth = [k for k in row if "probability" in k or "train" in k]
        assert [other[k] for k in smooth] == pytest.approx(
            [row[k] for k in smooth], rel=1e-3, abs=1e-4
        )


def gives_the_recorded_losses(model, run):
    """Score the recorded answers with the exported model in transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "model")
    forget_records = records.read_evaluation(run / "eval" / "2").sets["forget"].records
    assert forget_records
    for record in forget_records:
        ids = tokenizer(f"Question: {record.prompt}\nAnswer: {record.answer}", return_tensors="pt")[
            "input_ids"
        ]
        ids = torch.cat([ids, torch.tensor([[tokenizer.eos_token_id]])], 1)
        labels = ids.clone()
        labels[:, : len(tokenizer(f"Question: {record.prompt}\nAnswer:")["input_ids"])] = -100
        with torch.no_grad():
            assert model(ids, labels=labels).loss.item() == pytest.approx(record.loss, abs=1e-4)


@pytest.mark.parametrize(
    ("strategy", "processes"), [("ddp", 2), ("fsdp2", 2), ("ddp", 4), ("fsdp2", 4)]
)
def test_processes_asked_to_stop_write_one_checkpoint_and_go_on_to_the_same_bits(
    where, folder, strategy, processes
):
    expected = undisturbed_run(
        where, folder, f"{strategy}-{processes}-", processes, f"trainer.strategy={strategy}"
    )
    name = f"{strategy}-{processes}-stopped"
    words = run_words(folder, name, *SLOW, f"trainer.strategy={strategy}")

    def stop(started):
        begun = folder / name / "metrics.jsonl"
        wait_until(lambda: begun.exists() and len(rows(folder / name)) >= 3)
        for process in started:
            os.kill(process.pid, signal.SIGTERM)

    assert (
        killed_processes.fit_together(where, words, processes, stop, delay=0.7)
        == [128 + signal.SIGTERM] * processes
    )
    (newest, *_) = list_checkpoints(folder / name / "checkpoints")
    assert newest.is_file()
    assert not (folder / name / run_folder.SUMMARY_FILE).exists()
    assert killed_processes.fit_together(where, words, processes) == [0] * processes
    assert_same_outcome(folder / name, expected)


def test_the_model_of_another_process_holds_no_memory(llama):
    from tif.config.model import Lora, Model

    for cfg in (Model(path=llama), Model(path=llama, lora=Lora(rank=2))):
        empty, full = (models.load_policy(cfg, None, 0, empty) for empty in (True, False))
        assert {w.device.type for w in empty.parameters()} == {"meta"}
        shapes = [
            [(n, w.shape, w.dtype, w.requires_grad) for n, w in m.named_parameters()]
            for m in (empty, full)
        ]
        assert shapes[0] == shapes[1]
