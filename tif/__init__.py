"""Targeted Information Forgetting: make a language model forget chosen words, not the rest.

For notebooks and scripts, each name below is imported when it is first used:

    import tif

    forget = [("Where does Ada Quill live?", "Ada Quill lives in [[Port Lorne]].")]
    retain = [("Where is the Eiffel Tower?", "The Eiffel Tower is in Paris.")]
    run = tif.unlearn("HuggingFaceTB/SmolLM2-135M-Instruct", forget, retain)
    run.ask("Where does Ada Quill live?")
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from tif._version import VERSION
from tif.utils import interrupts

# While Python looks for the module of `tif fit`, its name is not yet in sys.argv.
if interrupts.PARENT in os.environ or (
    sys.argv[:1] == ["-m"] and any("tif." in word for word in sys.orig_argv)
):
    interrupts.watch()

if TYPE_CHECKING:  # what a type checker sees of the names below
    from tif.api.evaluate import evaluate
    from tif.api.evaluation import Evaluation
    from tif.api.run import Run
    from tif.api.spans import Spans, identify
    from tif.api.unlearn import unlearn
    from tif.config.errors import ConfigError
    from tif.config.load import load as load_config
    from tif.data.benchmarks import read_benchmark
    from tif.data.samples import Sample, Span
    from tif.losses.terms import term

__version__ = VERSION
__all__ = [
    "ConfigError", "Evaluation", "Run", "Sample", "Span", "Spans", "evaluate", "identify",
    "load_config", "read_benchmark", "term", "unlearn",
]  # fmt: skip

API = {
    "unlearn": "tif.api.unlearn:unlearn",  # model, samples -> Run
    "evaluate": "tif.api.evaluate:evaluate",  # model, samples or benchmark -> Evaluation
    "identify": "tif.api.spans:identify",  # samples, identifier -> Spans
    "Run": "tif.api.run:Run",  # a run folder: numbers, models, answers
    "Evaluation": "tif.api.evaluation:Evaluation",  # numbers, intervals, records
    "Spans": "tif.api.spans:Spans",  # samples with unwanted words
    "Sample": "tif.data.samples:Sample",  # a question and its answer, or a document
    "Span": "tif.data.samples:Span",  # characters of an answer
    "load_config": "tif.config.load:load",  # words of `tif fit` -> checked Config
    "read_benchmark": "tif.data.benchmarks:read_benchmark",  # section data -> forget set, ...
    "term": "tif.losses.terms:term",  # decorator that registers a loss term of one's own
    "ConfigError": "tif.config.errors:ConfigError",  # wrong input, a line for each problem
}


def __getattr__(name: str) -> Any:
    """Import a name of the API."""
    if name not in API:
        raise AttributeError(f"module 'tif' has no attribute {name!r}; its names: {', '.join(API)}")
    module, attribute = API[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    """Return the names of the API, for completion in notebooks."""
    return sorted([*API, "__version__"])
