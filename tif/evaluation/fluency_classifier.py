"""How sure a classifier is that texts are no gibberish: the model behind `<set>/clean`.

Called by model_numbers.py where `fluency.classifier` names a model. transformers' pipeline rounds the
probabilities differently in the seventh digit.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tif.config.errors import ConfigError, one_line
from tif.evaluation.generate import batch_by_length
from tif.models.load import check_hugging_face_model, resolve_model_path

CLEAN = "clean"  # name of the class; the first one where none has it
MAX_TOKENS = 512  # of a text are read
TOKENS_PER_BATCH = 4096  # of one forward, with padding


def check_classifier(path: str | None) -> None:
    """Raise ConfigError if `path` is given and is no sequence classifier."""
    if path is not None:
        check_hugging_face_model(path, "fluency.classifier", "classifier")


def clean_probabilities(texts: Sequence[str], path: str, device: torch.device) -> list[float]:
    """Return the probability of the class "clean" for each text.

    Args:
        texts: generations; an empty one counts as a text like any other.
        path: folder or hub name of a sequence classifier with safetensors weights.
        device: to run it on.

    Raises:
        ConfigError: If there is no such classifier.
    """
    tokenizer, model = _load(path)
    model.to(device).eval()
    column = 0
    for number, label in model.config.id2label.items():
        if str(label).lower() == CLEAN:
            column = int(number)
    ids = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    probabilities = [0.0] * len(texts)
    for indices in batch_by_length([len(text_ids) for text_ids in ids], TOKENS_PER_BATCH):
        batch = tokenizer.pad({"input_ids": [ids[i] for i in indices]}, return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch.to(device)).logits.float()
        for i, probability in zip(indices, logits.softmax(1)[:, column].tolist(), strict=True):
            probabilities[i] = probability
    return probabilities


def _load(path: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        location = resolve_model_path(path)
        tokenizer = AutoTokenizer.from_pretrained(location)
        model = AutoModelForSequenceClassification.from_pretrained(
            location, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        problem = f"{path} is no classifier that can be loaded ({one_line(error)})"
        raise ConfigError(f"fluency.classifier: {problem}") from None
    return tokenizer, model
