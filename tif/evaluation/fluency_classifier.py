"""How sure a classifier is that generations are no gibberish: the model behind `<set>/clean`."""

from typing import Any

import torch

from tif.models.pretrained import Source, check_model, load_model, load_tokenizer
from tif.records.types import Evaluation

KEY = "fluency.classifier"
CLEAN = "clean"  # name of the class; the first one where none has it
MAX_TOKENS = 512  # of a text are read


def check_classifier(path: str) -> None:
    """Raise ConfigError unless `path` is a sequence classifier with its head and a tokenizer."""
    source = Source(path, KEY)
    check_model(source, "classifier")
    load_tokenizer(source)


def classify_generations(
    evaluation: Evaluation, path: str, device: torch.device
) -> dict[str, list[float]]:
    """Return the probability of the class "clean" for each generation, by set.

    Sets with a record without a generation are left out.

    Raises:
        ConfigError: If `path` is no sequence classifier with safetensors weights.
    """
    from transformers import pipeline

    source = Source(path, KEY)
    model = load_model(source, "classifier", dtype=torch.float32)
    tokenizer: Any = load_tokenizer(source)
    classify: Any = pipeline(
        "text-classification", model=model, tokenizer=tokenizer, device=device, top_k=None
    )
    labels = list(classify.model.config.id2label.values())
    clean_label = next((label for label in labels if str(label).lower() == CLEAN), labels[0])
    clean: dict[str, list[float]] = {}
    for name, records in evaluation.sets.items():
        texts = [record.generated for record in records.records if record.generated is not None]
        if len(texts) == len(records.records):
            clean[name] = []
            for scores in classify(texts, truncation=True, max_length=MAX_TOKENS):
                by_label = {score["label"]: score["score"] for score in scores}
                clean[name].append(by_label[clean_label])
    return clean
