"""Texts that share a prompt, scored in one row, against one plain forward a text."""

import pytest
import torch
import transformers

from tests.support import tiny_models
from tif.data.encoding import Encoded
from tif.scoring import shared_prompts
from tif.scoring.shared_prompts import SharedPromptRow, answer_logits

WINDOW = 6  # shorter than the texts below, longer than the two texts of the probe
MODELS = {
    **{
        kind: lambda kind=kind: tiny_models.model(kind)
        for kind in ("llama", "gpt2", "gpt-neox", "phi")
    },
    "gemma2": lambda: tiny_models.model("gemma2", sliding_window=WINDOW),
    "gemma3": lambda: from_config(
        transformers.Gemma3TextConfig, head_dim=8, sliding_window=WINDOW, query_pre_attn_scalar=8
    ),
    "mistral": lambda: from_config(transformers.MistralConfig, sliding_window=WINDOW),
    "qwen2": lambda: from_config(
        transformers.Qwen2Config,
        use_sliding_window=True,
        sliding_window=WINDOW,
        max_window_layers=1,
    ),
    "phi3": lambda: from_config(transformers.Phi3Config, sliding_window=WINDOW),
    "olmo3": lambda: from_config(transformers.Olmo3Config, sliding_window=WINDOW),
    "cohere2": lambda: from_config(transformers.Cohere2Config, sliding_window=WINDOW),
    "starcoder2": lambda: from_config(transformers.Starcoder2Config, sliding_window=WINDOW),
}


def from_config(config, **keys):
    return tiny_models.spread(
        transformers.AutoModelForCausalLM.from_config(config(**tiny_models.LLAMA_LIKE | keys))
    )


def texts_of_a_group(name, prompt, *answers):
    """Texts with the same prompt of random tokens; every token after it is scored."""
    shared = tiny_models.encoded(name, "p" * prompt).input_ids
    texts = []
    for number, length in enumerate(answers):
        ids = shared + tiny_models.encoded(f"{name}{number}", "g" * length).input_ids
        texts.append(Encoded(name, ids, [False] * len(ids), [t >= prompt for t in range(len(ids))]))
    return texts


GROUPS = [
    texts_of_a_group("a", 9, 5, 8, 3),
    texts_of_a_group("b", 1, 14, 2),
    texts_of_a_group("c", 12, 7),
]


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("kind", MODELS)
def test_logits_are_those_of_a_plain_forward_a_text_windows_included(kind, batching):
    model = MODELS[kind]()
    expected = []
    with torch.no_grad():
        for group in GROUPS:
            for text in group:
                logits = model(input_ids=torch.tensor([text.input_ids])).logits[0]
                expected += [logits[t - 1] for t in range(1, len(text.input_ids)) if text.gw[t]]
        actual = answer_logits(model, GROUPS, batching)
    torch.testing.assert_close(actual.logits, torch.stack(expected), atol=1e-4, rtol=1e-4)
    assert actual.counts == [5, 8, 3, 14, 2, 7]


def test_a_shared_prompt_stands_once_in_the_row_and_positions_go_on_from_it():
    texts = [
        Encoded("x", ids, [False] * 4, [False, False, True, True])
        for ids in ([7, 8, 1, 2], [7, 8, 3, 4])
    ]
    row = SharedPromptRow([texts])
    assert row.ids == [7, 8, 1, 2, 3, 4]
    assert row.positions == [0, 1, 2, 3, 2, 3]
    assert row.predicting == [
        1,
        2,
        1,
        4,
    ]  # the prompt's last token predicts the first answer token of both
    assert row.targets == [1, 2, 3, 4]
    mask = row.inputs(torch.device("cpu"), torch.float32)["attention_mask"][0, 0]
    assert (mask == 0).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],  # the second text does not see the first
        [1, 1, 0, 0, 1, 1],
    ]


def test_flash_attention_gets_no_mask():
    model = tiny_models.model()
    model.config._attn_implementation = "flash_attention_2"
    assert not shared_prompts._can_share_prompts(model)
