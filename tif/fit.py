"""python -m tif.fit: finetune or unlearn a model, evaluate it, export it.

    python -m tif.fit [file.yaml ...] [key=value ...] [--print] [--help]

Without a file: quickstart.yaml (invented authors, a tiny Llama, CPU, no download). Files merge left to right over the
defaults, then the overrides; one that names loss.forget is a whole method, the loss before it leaves nothing. tif's own
configs are found from any folder.

    python -m tif.fit optimizer.lr=5e-4                               the quickstart with another learning rate
    python -m tif.fit tofu_smollm2.yaml loss/tpo_gdr.yaml data.path=../TOFU identifier.path=../masks
    python -m tif.fit runs/quickstart/config.yaml                     a finished run again
    python -m tif.fit stage=target                                    only the target model

With several devices (trainer.devices=4) each has a process, started by torchrun, or by srun or torchrun of your own.

Exit code: 0 done, 1 the loss was not finite or a file could not be written, 2 wrong input (one line a problem, before
weights load), 128 + N stopped by signal N (SIGTERM, SIGUSR1) with a checkpoint written: the same command goes on.
"""

import sys
from collections.abc import Sequence

from tif.config import load as config
from tif.config.errors import ConfigError
from tif.utils import command_line, distributed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        Exit code, as told above.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not any(map(config.is_file, words)):
        words = ["quickstart.yaml", *words]
    try:
        cfg = config.command(__doc__ or "", words)
        if cfg is None:
            return 0
        started = distributed.launch("tif.fit", words, cfg.trainer.devices, cfg.trainer.accelerator)
        if started is not None:
            return started
        from tif.training import (
            run as training,  # torch and transformers only now, so that help and wrong keys answer at once
        )

        return training.attempt(lambda: training.run(cfg))
    except ConfigError as error:
        if distributed.is_first_rank():
            print(error, file=sys.stderr)
        return 2
    finally:
        distributed.finish()


if __name__ == "__main__":
    command_line.run_main(main)
