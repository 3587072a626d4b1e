"""How sure a classifier is that generations are no gibberish: the model behind `<set>/clean`.

Called by model_numbers.py where `fluency.classifier` names a model.
"""

from typing import Any

import torch

from tif.config.errors import ConfigError, one_line
from tif.models.load import resolve_model_path
from tif.records.types import Evaluation

CLEAN = "clean"  # name of the class; the first one where none has it
MAX_TOKENS = 512  # of a text are read


def classify_generations(
    evaluation: Evaluation, path: str, device: torch.device
) -> dict[str, list[float]]:
    """Return the probability of the class "clean" for each generation, by set.

    Sets with a record without a generation are left out.

    Raises:
        ConfigError: If `path` is no sequence classifier with safetensors weights.
    """
    from transformers import pipeline

    make_pipeline: Any = pipeline  # its overloads know no sequence classifiers of all classes
    options = {"device": device, "dtype": torch.float32, "top_k": None}
    safe = {"use_safetensors": True}
    try:
        location = str(resolve_model_path(path))
        classify = make_pipeline("text-classification", location, model_kwargs=safe, **options)
    except (OSError, ValueError) as error:
        problem = f"{path} is no classifier that can be loaded ({one_line(error)})"
        raise ConfigError(f"fluency.classifier: {problem}") from None
    labels = list(classify.model.config.id2label.values())
    clean_label = labels[0]
    for label in labels:
        if str(label).lower() == CLEAN:
            clean_label = label
    clean: dict[str, list[float]] = {}
    for name, records in evaluation.sets.items():
        texts = [record.generated for record in records.records if record.generated is not None]
        if len(texts) == len(records.records):
            clean[name] = []
            for scores in classify(texts, truncation=True, max_length=MAX_TOKENS):
                by_label = {score["label"]: score["score"] for score in scores}
                clean[name].append(by_label[clean_label])
    return clean
