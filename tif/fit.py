"""tif fit: finetune or unlearn a model, evaluate it, export it.

    tif fit [file.yaml ...] [model=PRESET[:VARIANT]] [key=value ...] [--print]
    tif fit --help [section ... | all]

Without a file: tofu.yaml, muse.yaml, lume.yaml, text.yaml or fictitious.yaml, as data.benchmark or
data.path says; quickstart.yaml (invented authors, a tiny Llama, CPU, no download) where no data is
named. The first line says which. Files merge left to right over the defaults, then the overrides; a
file that names loss.forget is a whole method: of the loss in files before it nothing is left. tif's
own configs are found from any folder. model=llama_3_2_3b is configs/model/llama_3_2_3b.yaml, and
model=llama_3_2_3b:24gb its variant for such a card.

    tif fit optimizer.lr=5e-4                     the quickstart, another learning rate
    tif fit tofu.yaml model=llama_3_2_3b data.split=forget10
    tif fit tofu.yaml model=smollm2_135m loss/tpo_gdr.yaml
    tif fit data.path=FOLDER model=qwen_2_5_1_5b  texts of your own
    tif fit runs/quickstart/config.yaml           a finished run again
    tif fit stage=target                          only the target model

With several devices (trainer.devices=4) each has a process, started by torchrun, or by srun or
torchrun of your own.

A run that Ctrl-C, SIGTERM or SIGUSR1 stops writes a checkpoint, and the same command continues; a
second Ctrl-C stops at once. A loss that is not finite ends it with exit code 1.
"""

from argparse import Namespace

from tif.config import load as config
from tif.config import presets
from tif.config.command import Command
from tif.config.schema import Config
from tif.utils import command_line, distributed


def fit(options: Namespace) -> int:
    """Train as the words say, in one process or in one a device; return the exit code."""
    words, preset = presets.complete_words(options.words)
    cfg = config.load(words)
    if options.print:
        from tif.bench.estimate import describe_needs
        from tif.evaluation.prompt_format import describe_run

        needs = describe_needs(cfg)  # first: it checks all that the run reads
        comments = [*describe_run(cfg), *needs]
        command_line.print_configuration(config.to_yaml(cfg), comments)
        return 0
    trainer = cfg.trainer
    exit_code = distributed.launch("tif.fit", options.words, trainer.devices, trainer.accelerator)
    if exit_code is not None:
        return exit_code
    with command_line.loading():
        from tif.training.sources import check_sources
    check_sources(cfg)  # before heavy libraries load
    with command_line.loading():
        from tif.audit.run import audit_finished_run
        from tif.training.run import attempt, run
    return attempt(lambda: run(cfg, preset, [audit_finished_run]))


COMMAND = Command("fit", __doc__, fit, Config, flags=("--print",))
main = COMMAND.main

if __name__ == "__main__":
    COMMAND.run()
