"""Check a configuration's model before its weights load: causal, packed, few bits, adapters."""

import torch

from tif.config.errors import ConfigError
from tif.config.model import Model
from tif.models.export import check_export
from tif.models.load import build_empty
from tif.models.lora import attach_adapters
from tif.probes.small_copy import RowSettings, check_small_copy


def check_model(settings: Model, is_exported: bool = False, rows: RowSettings | None = None) -> str:
    """Raise ConfigError unless section `model` describes a causal LM that has the LoRA targets.

    Args:
        settings: the section.
        is_exported: whether the model will be written, and must be read again by its config.
        rows: settings of the rows; None = packed or padded, as the model allows.

    Returns the model's family, as transformers calls it ("llama").
    """
    from transformers.pytorch_utils import Conv1D

    model = build_empty(settings)
    if settings.path is not None or "model_type" in settings.init:  # a new Llama is a causal LM
        check_small_copy(model, rows or RowSettings())
    if settings.quantize != "none":
        head = model.get_output_embeddings()
        classes = {type(layer) for layer in model.modules() if layer is not head}
        if not classes & {torch.nn.Linear, Conv1D}:
            problem = f"bitsandbytes knows no layer of {type(model).__name__}; want none"
            raise ConfigError(f"model.quantize: {settings.quantize}, but {problem}")
    if settings.lora.rank:
        attach_adapters(model, settings.lora, seed=0)
    if is_exported:
        check_export(model, settings.lora)
    return str(model.config.model_type)
