"""Study how far each metric can be trusted, on pools of tiny models.

    python -m lab.metric_trust [key=value ...] [--json]

It makes models that know the forget set, models that do not, and models that unlearned it by every
method, and measures all of them. What was measured is kept: the same command goes on after a kill.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from lab.metric_trust.settings import MetricTrust
from tif.config import load as config
from tif.config.command import Command
from tif.utils import command_line


def study_metrics(options: Namespace) -> Any:
    """Make and measure the models, and show the table; return the content of `--json`."""
    settings = config.read(MetricTrust, options.words)
    with command_line.loading():
        from lab.metric_trust.study import check_settings, examine_metrics
        from lab.metric_trust.table import show_metrics

    check_settings(settings)
    content = examine_metrics(settings)
    if options.json:
        return content
    show_metrics(content, Path(settings.out))
    return None


COMMAND = Command(
    "metric_trust", __doc__, study_metrics, MetricTrust, flags=("--json",),
    next_step="the same command continues with the rest",
)  # fmt: skip
main = COMMAND.main

if __name__ == "__main__":
    COMMAND.run()
