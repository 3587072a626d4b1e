"""what=identify: speed and memory of the identifiers that read a document with a model."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.table import Table

from tif import identifiers
from tif.bench.process import PeakMemory, run_alone
from tif.bench.settings import BenchSettings
from tif.bench.table import make_plain_table
from tif.config.errors import ConfigError
from tif.config.schema import Identifier, Model
from tif.data.fictitious import generate_fictitious
from tif.data.samples import Sample
from tif.identifiers.language_models import check_language_model
from tif.models.load import load_tokenizer
from tif.utils.terminal import track
from tif.utils.torch_state import seeded

KINDS = ("masked_lm", "causal_lm")
PARTS = (16, 4, 1)  # the document is read in a 16th, in a quarter and as a whole
WARM_UP_WORDS = 1000
TRAINING_CHARACTERS = 1_000_000  # of the document, for a tokenizer


def measure(settings: BenchSettings) -> list[dict[str, Any]]:
    """Return rows of kind, words, seconds, words_per_second and memory_mb.

    Memory is the peak of the work above what was held before.

    Raises:
        ConfigError: If a model cannot be loaded or the text is shorter than `words`.
    """
    document = read_document(settings)
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for kind in KINDS:
            path = getattr(settings, kind) or make_tiny_model(kind, document, Path(folder) / kind)
            try:
                check_language_model(path, kind, kind.replace("_lm", " LM"))
            except ValueError as error:
                raise ConfigError(str(error)) from None
            jobs += [(kind, path, settings.words // part) for part in PARTS]
        rows = []
        for kind, path, words in track(jobs, "identifiers"):
            text = first_words(document, words)
            rows.append(run_alone(measure_identifier, kind, path, words, text, settings.threads))
        return rows


def measure_identifier(
    kind: str, path: str, words: int, document: str, threads: int | None
) -> dict[str, Any]:
    """Return the row of an identifier.

    Args:
        kind: of the identifier.
        path: of its model.
        words: of the document.
        document: cut already, since cutting takes memory.
        threads: of the CPU; None = torch's own choice.
    """
    if threads:
        torch.set_num_threads(threads)
    settings = Identifier(kind=kind, device="cpu")
    getattr(settings, kind).model = path
    # Weights are loaded and kernels chosen before the clock runs.
    warm_up = Sample("document", "", first_words(document, WARM_UP_WORDS))
    identifiers.identify(settings, [warm_up])
    sample = Sample("document", "", document)
    memory = PeakMemory("cpu")
    memory.restart()
    start = time.perf_counter()
    identifiers.identify(settings, [sample])
    seconds = time.perf_counter() - start
    return {
        "kind": kind,
        "words": words,
        "seconds": round(seconds, 2),
        "words_per_second": round(words / seconds),
        "memory_mb": round(memory.peak_mb(), 1),
    }


def read_document(settings: BenchSettings) -> str:
    """Return `settings.words` words with single blanks between them.

    Raises:
        ConfigError: If the text file has fewer words.
    """
    if settings.text:
        words = Path(settings.text).expanduser().read_text(encoding="utf-8").split()
        if len(words) < settings.words:
            raise ConfigError(
                f"text: {settings.text} has {len(words)} words, want {settings.words}; lower words="
            )
        return " ".join(words[: settings.words])
    words, seed = [], 0
    while len(words) < settings.words:
        authors = generate_fictitious(200, 20, forget_share=0.5, seed=seed)
        for sample in (*authors.forget, *authors.retain):
            words += sample.answer.split()
        seed += 1
    return " ".join(words[: settings.words])


def first_words(document: str, words: int) -> str:
    """Return the beginning of a document."""
    return " ".join(document.split(" ", words)[:words])


def make_tiny_model(kind: str, document: str, folder: Path) -> str:
    """Save a model of two layers with random weights and a tokenizer trained on the document.

    Returns:
        The folder.
    """
    size: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    text = document[:TRAINING_CHARACTERS]
    with seeded(0):
        if kind == "masked_lm":
            tokenizer = _train_word_pieces(text)
            shape: Any = transformers.BertConfig(vocab_size=len(tokenizer), **size)
            model: Any = transformers.BertForMaskedLM(shape)
        else:
            tokenizer = load_tokenizer(Model(path=None, init={"vocab_size": 2048}), [text])
            shape = transformers.LlamaConfig(vocab_size=len(tokenizer), **size)
            model = transformers.LlamaForCausalLM(shape)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _train_word_pieces(text: str) -> Any:
    """Return a tokenizer as BERT has it."""
    from tokenizers import BertWordPieceTokenizer

    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator([text], vocab_size=2048, show_progress=False)
    special = {
        f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")
    }
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces._tokenizer, model_max_length=512, **special
    )


def make_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the table for the terminal."""
    columns = {
        "identifier": "{kind}",
        "words": "{words:,}",
        "seconds": "{seconds:.1f}",
        "words/s": "{words_per_second:,}",
        "memory added (MB)": "{memory_mb:.1f}",
    }
    return make_plain_table(rows, columns)
