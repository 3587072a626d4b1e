"""what=identify: speed and memory of the identifiers that read a document with a model."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import BertWordPieceTokenizer

from lab.speed.settings import SpeedSettings
from tif import identifiers
from tif.bench.process import PeakMemory, run_alone
from tif.config.data import Fictitious
from tif.config.errors import ConfigError, one_line
from tif.config.identifier import make_identifier
from tif.config.schema import Model
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.data.samples import Sample
from tif.identifiers.language_models import check_language_model
from tif.models.load import load_tokenizer
from tif.models.pretrained import Source
from tif.utils.files import read_bytes
from tif.utils.terminal import track
from tif.utils.torch_state import seeded

KINDS = ("masked_lm", "causal_lm")
PARTS = (16, 4, 1)  # the document is read in a 16th, in a quarter and as a whole
COLUMNS = {
    "identifier": "{kind}",
    "words": "{words:,}",
    "seconds": "{seconds:.1f}",
    "words/s": "{words_per_second:,}",
    "memory added (MB)": "{memory_mb:.1f}",
}


def measure(settings: SpeedSettings) -> list[dict[str, Any]]:
    """Return rows of kind, words, seconds, words_per_second and memory_mb.

    Memory is the peak of the work above what was held before.

    Raises:
        ConfigError: If a model cannot be loaded or the text is shorter than `words`.
    """
    document = read_document(settings)
    jobs, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = getattr(settings, kind) or make_tiny_model(kind, document, Path(folder) / kind)
            check_language_model(Source(path, kind), kind.replace("_lm", " LM"))
            jobs += [(kind, path, settings.words // part) for part in PARTS]
        for kind, path, words in track(jobs, "identifiers"):
            text = first_words(document, words)
            rows.append(run_alone(measure_identifier, kind, path, words, text, settings.threads))
    return rows


def measure_identifier(
    kind: str, path: str, words: int, document: str, threads: int | None
) -> dict[str, Any]:
    """Return the row of an identifier on a document, which is cut to `words` words already."""
    if threads:
        torch.set_num_threads(threads)
    settings = make_identifier(kind=kind, device="cpu")
    getattr(settings, kind).model = path
    # Weights are loaded and kernels chosen before the clock runs.
    identifiers.identify(settings, [Sample("document", "", first_words(document, 1000))])
    sample = Sample("document", "", document)
    memory = PeakMemory("cpu")
    memory.restart()
    start = time.perf_counter()
    identifiers.identify(settings, [sample])
    seconds = time.perf_counter() - start
    return {
        "kind": kind, "words": words, "seconds": round(seconds, 2),
        "words_per_second": round(words / seconds), "memory_mb": round(memory.peak_mb(), 1),
    }  # fmt: skip


def read_document(settings: SpeedSettings) -> str:
    """Return `settings.words` words with single blanks between them.

    Raises:
        ConfigError: If the text file has fewer words.
    """
    words, wanted, seed = [], settings.words, 0
    if settings.text:
        try:
            words = read_bytes(Path(os.path.expanduser(settings.text))).decode("utf-8").split()
        except (OSError, ValueError) as error:
            problem = f"{settings.text} is no UTF-8 text ({one_line(error)})"
            raise ConfigError(f"text: {problem}") from None
        if len(words) < wanted:
            problem = f"{settings.text} has {len(words)} words, want {wanted}"
            raise ConfigError(f"text: {problem}; lower words=")
    while len(words) < wanted:
        authors = generate_fictitious(Fictitious(200, 20, forget_share=0.5, seed=seed))
        for sample in (*authors.forget, *authors.retain):
            words += sample.answer.split()
        seed += 1
    return " ".join(words[:wanted])


def first_words(document: str, words: int) -> str:
    """Return the beginning of a document."""
    return " ".join(document.split(" ", words)[:words])


def make_tiny_model(kind: str, document: str, folder: Path) -> str:
    """Save a random model and a tokenizer trained on the document; return the folder."""
    size: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }  # fmt: skip
    text = document[:1_000_000]
    with seeded(0):
        if kind == "masked_lm":
            pieces = BertWordPieceTokenizer()
            pieces.train_from_iterator([text], vocab_size=2048, show_progress=False)
            names = ("PAD", "UNK", "CLS", "SEP", "MASK")
            tokenizer: Any = transformers.PreTrainedTokenizerFast(
                tokenizer_object=pieces._tokenizer, model_max_length=512,
                **{f"{name.lower()}_token": f"[{name}]" for name in names},
            )  # fmt: skip
            shape: Any = transformers.BertConfig(vocab_size=len(tokenizer), **size)
            model: Any = transformers.BertForMaskedLM(shape)
        else:
            tokenizer = load_tokenizer(Model(path=None, init={"vocab_size": 2048}), [text])
            shape = transformers.LlamaConfig(vocab_size=len(tokenizer), **size)
            model = transformers.LlamaForCausalLM(shape)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
