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

Exit code: 0 done, 1 the loss was not finite or a file could not be read or written, 2 wrong input
(one line a problem, before weights load), 128 + N stopped by signal N (Ctrl-C, SIGTERM, SIGUSR1)
with a checkpoint written: the same command continues. A second Ctrl-C stops at once.
"""

from collections.abc import Sequence

import tif.losses  # noqa: F401  registers the loss terms, whose keys the configuration has
from tif.config import load as config
from tif.config import presets
from tif.config.errors import ConfigError
from tif.config.help import command_help
from tif.utils import command_line, distributed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command_line.Parser("tif fit")
    parser.add_argument("settings", nargs="*")
    for flag in ("--print", "--help", "-h"):
        parser.add_argument(flag, action="store_true")
    words, unknown = parser.parse_known_intermixed_args(argv)
    settings = [*unknown, *words.settings]
    notes: list[str] = []
    try:
        if words.help or words.h:
            command_line.print_help(command_help(__doc__, topics=words.settings))
            return 0
        all_settings, preset = presets.complete_words(settings)
        cfg = config.load(all_settings, notes)
        if words.print:
            from tif.bench.estimate import describe_needs
            from tif.evaluation.first_sample import describe_run

            command_line.print_yaml(config.to_yaml(cfg))
            command_line.print_text("\n".join([*describe_run(cfg), *describe_needs(cfg)]))
            return 0
        trainer = cfg.trainer
        exit_code = distributed.launch("tif.fit", settings, trainer.devices, trainer.accelerator)
        if exit_code is not None:
            return exit_code
        from tif.training.sources import check_sources

        check_sources(cfg)
        # Lightning loads only now, so that help and wrong keys are answered at once.
        from tif.training import run as training

        return training.attempt(lambda: training.run(cfg, preset, notes))
    except ConfigError as error:
        command_line.print_error(error)
        return 2
    finally:
        distributed.finish()


if __name__ == "__main__":
    command_line.run_main(main)
