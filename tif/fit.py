"""python -m tif.fit: finetune or unlearn a model, evaluate it, export it.

    python -m tif.fit [file.yaml ...] [key=value ...] [--print] [--help]

Without a file: quickstart.yaml (invented authors, a tiny Llama, CPU, no download). Files merge left to right over the
defaults, then the overrides; tif's own configs are found from any folder.

    python -m tif.fit optimizer.lr=5e-4                               the quickstart with another learning rate
    python -m tif.fit tofu_smollm2.yaml loss/tpo_gdr.yaml data.path=../TOFU identifier.path=../masks
    python -m tif.fit runs/quickstart/config.yaml                     a finished run again
    python -m tif.fit stage=target                                    only the target model

Exit code: 0 done, 1 the loss was not finite, 2 wrong input (one line a problem, before weights load).
"""

import sys
from collections.abc import Sequence

from tif import config


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        Exit code: 0 done, 1 the loss was not finite, 2 wrong input (one line a problem, before weights load).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not any(map(config.is_file, words)):
        words = ["quickstart.yaml", *words]
    try:
        cfg = config.command(__doc__ or "", words)
        if cfg is None:
            return 0
        from tif import training  # torch and transformers only now, so that help and wrong keys answer at once

        training.run(cfg)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
