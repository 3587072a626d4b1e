"""what=identify: words a second and peak memory of the identifiers that read a document with a model."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tif.bench.process import Memory, alone
from tif.config.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from tif.bench.command import Bench
    from tif.data.samples import Sample

KINDS = ("masked_lm", "causal_lm")


def rows(cfg: "Bench") -> list[dict[str, Any]]:
    """Rows of kind, words, seconds, words_per_second, memory_mb (the peak of the work above what was held).

    Raises:
        ConfigError: If a model cannot be loaded or the text is shorter than `words`.
    """
    from tif.identifiers.language_models import check_language_model
    from tif.utils.terminal import quiet_libraries, track

    quiet_libraries()
    document = _document(cfg)
    with tempfile.TemporaryDirectory() as folder:
        models = {kind: getattr(cfg, kind) or _tiny(kind, document, Path(folder) / kind) for kind in KINDS}
        for kind, path in models.items():
            try:
                check_language_model(path, kind, kind.replace("_lm", " LM"))
            except ValueError as error:
                raise ConfigError(str(error)) from None
        jobs = [(kind, models[kind], cfg.words // part) for kind in KINDS for part in (16, 4, 1)]
        return [
            alone(_measure, kind, path, words, _sample(document, words).answer, cfg.threads)
            for kind, path, words in track(jobs, "identifiers")
        ]


def _measure(kind: str, path: str, words: int, document: str, threads: int | None) -> dict[str, Any]:
    """One row."""
    import torch

    from tif import identifiers
    from tif.config.schema import Identifier
    from tif.data.samples import Sample
    from tif.utils.terminal import quiet_libraries

    quiet_libraries()
    if threads:
        torch.set_num_threads(threads)
    cfg = Identifier(kind=kind, device="cpu")
    getattr(cfg, kind).model = path
    identifiers.identify(cfg, [_sample(document, 1000)])  # weights and kernels are loaded now
    whole = Sample("document", "", document)  # of `words` words, cut by the caller: cutting takes memory of its own
    memory = Memory("cpu")
    memory.restart()
    since = time.perf_counter()
    identifiers.identify(cfg, [whole])
    seconds = time.perf_counter() - since
    return {
        "kind": kind, "words": words, "seconds": round(seconds, 2), "words_per_second": round(words / seconds),
        "memory_mb": round(memory.peak_mb(), 1),
    }  # fmt: skip


def _sample(document: str, words: int) -> "Sample":
    from tif.data.samples import Sample

    return Sample("document", "", " ".join(document.split(" ", words)[:words]))


def _document(cfg: "Bench") -> str:
    """`cfg.words` words with single blanks between."""
    if cfg.text:
        found = Path(cfg.text).expanduser().read_text(encoding="utf-8").split()
    else:
        from tif.data.fictitious import generate_fictitious

        found, seed = [], 0
        while len(found) < cfg.words:
            made = generate_fictitious(authors=200, questions_per_author=20, forget_share=0.5, seed=seed)
            found += [word for s in (*made.forget, *made.retain) for word in s.answer.split()]
            seed += 1
    if len(found) < cfg.words:
        raise ConfigError(f"text: {cfg.text} has {len(found)} words, want {cfg.words}; lower words=")
    return " ".join(found[: cfg.words])


def _tiny(kind: str, document: str, folder: Path) -> str:
    """A model of two layers with random weights and a tokenizer trained on the document; its folder."""
    import torch
    import transformers

    from tif.config.schema import Model
    from tif.models.load import load_tokenizer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        size: dict[str, Any] = {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
        if kind == "masked_lm":
            tokenizer = _word_pieces(document)
            model: Any = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=len(tokenizer), **size))
        else:
            tokenizer = load_tokenizer(Model(path=None, init={"vocab_size": 2048}), [document[:1_000_000]])
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(tokenizer), **size))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _word_pieces(document: str) -> Any:
    from tokenizers import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    made = BertWordPieceTokenizer()
    made.train_from_iterator([document[:1_000_000]], vocab_size=2048, show_progress=False)
    names = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, model_max_length=512, **names)


def table(rows: Sequence[dict[str, Any]]) -> "Table":
    """For the terminal."""
    from rich.table import Table

    made = Table("identifier", "words", "seconds", "words/s", "memory added (MB)", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        made.add_row(row["kind"], f"{row['words']:,}", f"{row['seconds']:.1f}", f"{row['words_per_second']:,}",
                      f"{row['memory_mb']:.1f}")  # fmt: skip
    return made
