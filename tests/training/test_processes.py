"""One global batch, any number of processes, the same weights: real gloo, a tiny model."""

import json
import pathlib
import subprocess
import sys

import lightning as L
import pytest
import safetensors.torch
import torch

from tests.support import tiny_models
from tests.support.modules import unlearning_module
from tests.support.tiny_unlearning import RETAIN, Watch, cfg_of
from tif.config.schema import Config, Optimizer
from tif.data.encoding import collate
from tif.models.references import make_reference

ROOT = pathlib.Path(__file__).parents[2]
METHODS = ("tpo", "npo_gdr", "tpo_released")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*in eval mode at the start", "ignore:.*LeafSpec.*:FutureWarning"
)


def train(folder, processes):
    """Ten steps of each method, 7 or 2 samples in parts of 24 tokens; rank 0 writes the results."""
    for method in METHODS:
        fit(folder, processes, method)


def fit(folder, processes, method):
    items = [
        tiny_models.encoded(f"{i}", "p" * (1 + i % 3) + "u" * (i % 4) + "g" * (1 + i % 5))
        for i in range(7)
    ]
    batches = []
    for step in range(10):
        order = [
            (i * 3 + step) % 7 for i in range(7 if step % 2 else 2)
        ]  # 2 samples are fewer than 4 processes
        batches.append(collate([items[i] for i in order], order, 0))
        batches[-1].retain = collate([RETAIN[i % 4] for i in order], order, 0)
    cfg = Config(loss=cfg_of(method), optimizer=Optimizer(lr=1e-2, warmup_epochs=0))
    cfg.data.max_tokens_per_batch = 24
    policy, watch = tiny_models.model(), Watch()
    module = unlearning_module(
        policy, cfg, "packed", make_reference("cached", policy, items, 0, "packed")
    )
    trainer = L.Trainer(
        accelerator="cpu", devices=int(processes), strategy="ddp" if processes != "1" else "auto",
        max_epochs=1, callbacks=[watch], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    if trainer.is_global_zero:
        weights = {name: value.contiguous() for name, value in policy.state_dict().items()}
        safetensors.torch.save_file(weights, f"{folder}/{method}-{processes}.safetensors")
        with open(f"{folder}/{method}-{processes}.json", "w") as file:
            json.dump(watch.logged, file)


@pytest.mark.slow
def test_one_two_and_four_processes_end_with_the_same_weights_and_log_the_same_losses(tmp_path):
    train(tmp_path, "1")
    for processes in ("2", "4"):
        words = [sys.executable, "-m", "tests.training.test_processes", tmp_path, processes]
        subprocess.run(words, check=True, timeout=300, cwd=ROOT)
    for method in METHODS:
        alone, rows = result(tmp_path, method, 1)
        assert len(rows) == 10
        for processes in (2, 4):
            shared, actual_rows = result(tmp_path, method, processes)
            for name, weight in alone.items():
                torch.testing.assert_close(
                    shared[name], weight, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n} {m}"
                )
            for row, expected in zip(actual_rows, rows, strict=True):
                assert row == pytest.approx(expected, rel=1e-3, abs=1e-4)


def result(folder, method, processes):
    name = f"{folder}/{method}-{processes}"
    return safetensors.torch.load_file(f"{name}.safetensors"), json.loads(
        pathlib.Path(f"{name}.json").read_text()
    )


if __name__ == "__main__":  # Lightning starts it again for each further process
    train(*sys.argv[1:])
