"""How sure a classifier is that generations are no gibberish: the model behind `<set>/clean`.

Called by model_numbers.py where `fluency.classifier` names a model. transformers' own pipeline for
text classification rounds the probabilities differently in the seventh digit.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tif.config.errors import ConfigError, one_line
from tif.evaluation.generate import batch_by_length
from tif.models.load import check_hugging_face_model, resolve_model_path
from tif.records.types import Evaluation

CLEAN = "clean"  # name of the class; the first one where none has it
MAX_TOKENS = 512  # of a text are read
TOKENS_PER_BATCH = 4096  # of one forward, with padding


def check_classifier(path: str | None) -> None:
    """Raise ConfigError if `path` is given and is no sequence classifier."""
    if path is not None:
        check_hugging_face_model(path, "fluency.classifier", "classifier")


def classify_generations(
    evaluation: Evaluation, path: str, device: torch.device
) -> dict[str, list[float]]:
    """Return the probability of the class "clean" for each generation, by set.

    Sets with a record without a generation are left out.

    Raises:
        ConfigError: If `path` is no sequence classifier with safetensors weights.
    """
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
    model.to(device).eval()
    clean = {}
    for name, records in evaluation.sets.items():
        texts = [record.generated for record in records.records if record.generated is not None]
        if len(texts) == len(records.records):
            clean[name] = _classify(model, tokenizer, texts)
    return clean


def _classify(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[float]:
    labels = model.config.id2label
    columns = [int(column) for column in labels if str(labels[column]).lower() == CLEAN]
    column = columns[0] if columns else 0
    ids = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    probabilities = [0.0] * len(texts)
    for indices in batch_by_length([len(text_ids) for text_ids in ids], TOKENS_PER_BATCH):
        batch = tokenizer.pad({"input_ids": [ids[i] for i in indices]}, return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch.to(model.device)).logits.float()
        for i, probability in zip(indices, logits.softmax(1)[:, column].tolist(), strict=True):
            probabilities[i] = probability
    return probabilities
