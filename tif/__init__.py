"""Targeted Information Forgetting: make a language model forget chosen words, not the rest.

For notebooks, each name below is imported when it is first used:

    cfg = tif.load_config(["quickstart.yaml", "optimizer.lr=5e-4"])
    tif.show_run(tif.run_config(cfg))
"""

import importlib
import os
import sys
from typing import Any

from tif.utils import interrupts

# While Python looks for the module of `tif fit`, its name is not yet in sys.argv.
if interrupts.PARENT in os.environ or (
    sys.argv[:1] == ["-m"] and any("tif." in word for word in sys.orig_argv)
):
    interrupts.watch()

__version__ = "0.1.0"

API = {
    "load_config": "tif.config.load:load",  # words of `tif fit` -> checked Config
    "run_config": "tif.training.run:run",  # Config -> folder of the finished run
    "show_run": "tif.reports.run_tables:show_run",  # prints the tables of a run folder
    "read_benchmark": "tif.data.benchmarks:read_benchmark",  # section data -> forget set, ...
    "label_samples": "tif.identifiers:identify",  # samples -> samples with unwanted spans
    "write_spans": "tif.identifiers.span_file:write_spans",  # labelled samples -> span file
    "load_policy": "tif.models.load:load_policy",  # section model -> the model to unlearn
    "load_tokenizer": "tif.models.load:load_tokenizer",  # section model -> its tokenizer
    "score_tokens": "tif.scoring.token_scores:score_tokens",  # model, batch -> TokenScores
    "compute_loss": "tif.losses:compute_loss",  # scores, batch, section loss -> loss and parts
    "term": "tif.losses.terms:term",  # decorator that registers a loss term of one's own
    "evaluate_model": "tif.evaluation.model_numbers:evaluate_model",  # as `tif.evaluate` does
    "read_evaluation": "tif.records.files:read_evaluation",  # folder or log -> records
}


def __getattr__(name: str) -> Any:
    """Import a name of the API."""
    if name not in API:
        raise AttributeError(f"module 'tif' has no attribute {name!r}; its names: {', '.join(API)}")
    importlib.import_module("tif.losses")  # its terms declare keys of the configuration
    module, attribute = API[name].split(":")
    return getattr(importlib.import_module(module), attribute)
