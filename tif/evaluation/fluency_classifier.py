"""How sure a classifier is that texts are no gibberish: the model behind `fluency/clean`."""

from collections.abc import Sequence

import torch

from tif.config.errors import one_line
from tif.evaluation.generate import by_length
from tif.models.load import check_hugging_face_model, resolve_model_path

CLEAN = "clean"
MAX_TOKENS = 512  # of a text are read


def check(path: str | None) -> None:
    """Stop before weights load where there is no such classifier.

    Raises:
        ValueError: One line.
    """
    if path is not None:
        check_hugging_face_model(path, "fluency.classifier", "classifier")


def clean_probabilities(
    texts: Sequence[str], path: str, device: torch.device, tokens_per_batch: int = 4096
) -> list[float]:
    """The probability of the class "clean" (or of the first, where none is called so) for each text.

    Args:
        texts: generations; an empty one counts as a text like any other.
        path: folder or hub name of a sequence classifier with safetensors weights.
        device: to run it on.
        tokens_per_batch: tokens of one forward, with padding.

    Raises:
        ValueError: If there is no such classifier.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_model_path(path))
        model = AutoModelForSequenceClassification.from_pretrained(
            resolve_model_path(path), use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise ValueError(_refusal(path, error)) from None
    model.to(device).eval()
    column = next((i for i, name in model.config.id2label.items() if str(name).lower() == CLEAN), 0)
    ids = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    found: dict[int, float] = {}
    for index in by_length([len(own) for own in ids], tokens_per_batch):
        batch = tokenizer.pad({"input_ids": [ids[i] for i in index]}, return_tensors="pt").to(device)
        with torch.no_grad():
            shares = model(**batch).logits.float().softmax(1)[:, int(column)]
        found |= zip(index, shares.tolist(), strict=True)
    return [found[i] for i in range(len(texts))]


def _refusal(path: str, error: Exception) -> str:
    reason = one_line(error)
    return f"fluency.classifier: {path} is no classifier that can be loaded ({reason})"
