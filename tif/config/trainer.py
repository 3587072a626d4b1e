"""Sections `trainer` and `optimizer`."""

import dataclasses

from tif.config.keys import key


@dataclasses.dataclass
class TrainerKeys:
    """Handed to lightning.Trainer under the same names, gradient_clip_val excepted."""

    max_epochs: int = key(10, "passes over the data of data.train", at_least=1)
    accelerator: str = key("auto", "cpu, gpu, auto, ...")
    devices: str = key("auto", "number of devices on this node, a process each, or auto; under "
        "srun and torchrun theirs count")
    strategy: str = key("auto", "auto; ddp (a copy on each device); fsdp2 (weights, gradients, "
        "optimizer and reference in shards); any other name that Lightning knows")
    precision: str = key("32-true", "32-true: as model.dtype says; bf16-mixed, 16-mixed: products "
        "in 16 bits, weights as model.dtype says; bf16-true: all in bfloat16. Losses are always "
        "float32", choices=("32-true", "bf16-mixed", "bf16-true", "16-mixed"))
    gradient_clip_val: float | None = key(1.0, "clip the gradient's norm; null = off", above=0)
    log_every_n_steps: int = key(1, "steps between two training rows of metrics.jsonl", at_least=1)

    def find_problems(self) -> list[str]:
        """Return the problems of the section, one line each."""
        if self.strategy in ("fsdp", "fsdp_cpu_offload"):
            return [f"trainer.strategy: {self.strategy} is the older FSDP, which tif does not "
                "shard for; want fsdp2"]
        return []


@dataclasses.dataclass
class Optimizer:
    """AdamW with linear warm-up and linear decay to 0."""

    name: str = key("auto", "adamw: torch's, fused; adamw_bf16: for bfloat16 weights, whose "
        "steps it rounds at random instead of losing them; auto: adamw_bf16 for bfloat16 weights, "
        "else adamw; adamw8bit: its state in 8 bits, 2 bytes a weight instead of 8; paged_: on a "
        "GPU the state moves to the CPU's memory when there is no room (the last three are "
        "bitsandbytes')", choices=("auto", "adamw", "adamw_bf16", "adamw8bit", "paged_adamw",
        "paged_adamw8bit"))
    lr: float = key(1e-5, "peak learning rate", above=0)
    weight_decay: float = key(0.01, "AdamW's decoupled weight decay", at_least=0)
    warmup_epochs: float = key(1.0, "epochs of linear warm-up from 0", at_least=0)
    decay: str = key("linear", "after warm-up: linear (to 0 at the last step) or constant",
        choices=("linear", "constant"))
