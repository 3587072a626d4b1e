"""Checks of each family: scores, chunks, evaluation, generation, against plain forwards.

A column is a function of a family's name that returns what was seen: "right", or "refused" where
tif stops with one line that says why. It raises AssertionError where a number is wrong.

Right: float32 scores within TOLERANCE of those of `model(ids).logits` of each text alone, as a
share of 1 + the standard deviation of the logits; a generation with exactly the tokens of the text
read anew at each step.
"""

import tempfile
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from tests.support import architectures, tiny_models
from tif.config.errors import ConfigError
from tif.config.model import Model
from tif.data.encoding import Encoded, collate
from tif.evaluation.generate import MODES, choose_mode, continue_prompts
from tif.probes.packed_rows import choose_batching
from tif.probes.text_length import check_length
from tif.scoring.attention import use_sample_by_sample_attention
from tif.scoring.lm_head import scores_of_logits
from tif.scoring.shared_prompts import answer_logits
from tif.scoring.token_scores import score_tokens

TOLERANCE = 1e-4
PAD = 2
CHUNK = 5  # answer tokens whose logits are computed at once; the texts have 33
# Where transformers' own `generate` continues a single prompt otherwise than by the logits of the
# text read anew: tokens that it forces (BART), positions counted from padding (RoBERTa), a cache
# that is wrong (Moshi beyond its window), an error (BLT, ProphetNet, xLSTM). In all others it
# agrees.
GENERATE_DIFFERS = (
    "bart", "blenderbot", "blenderbot-small", "blt", "data2vec-text", "marian", "mbart", "moshi",
    "pegasus", "plbart", "prophetnet", "recurrent_gemma", "roberta", "roberta-prelayernorm", "xlm",
    "xlm-roberta-xl", "xlstm",
)  # fmt: skip
# Their masks take no account of position_ids: packed on a CPU, whose attention runs sample by
# sample, and padded in the rows of a GPU.
PADDED_ON_A_GPU = (
    "afmoe", "biogpt", "granitemoehybrid, attention only", "opt", "opt, norm after the block",
)  # fmt: skip
SEEN_IN_GENERATION = dict(
    zip(MODES, ("right", "right", "right, one by one", "right, no cache"), strict=True)
)


def draw_ids(count: int, seed: int) -> list[int]:
    """Return random tokens, without those that configurations give a meaning (0, 1, 2)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, tiny_models.VOCAB, (count,), generator=generator).tolist()


def make_text(prompt: list[int], answer: int, seed: int) -> Encoded:
    """Return a prompt with an answer of some tokens, the last of which is the end token."""
    ids = [*prompt, *draw_ids(answer - 1, seed), 0]
    return Encoded(
        str(prompt), ids, [False] * len(ids), [t >= len(prompt) for t in range(len(ids))]
    )


# Longer and shorter than windows of 8, chunks of 8 and 16 positions, and a prompt of one token.
TEXTS = [make_text(draw_ids(prompt, seed), answer, seed) for seed, (prompt, answer) in
         enumerate([(3, 4), (1, 3), (12, 20), (5, 6)])]  # fmt: skip
GROUPS = [
    [make_text(draw_ids(prompt, prompt), answer, answer) for answer in answers]
    for prompt, answers in ((10, (5, 12, 3)), (1, (14, 2)), (20, (7,)))
]
PROMPTS = [draw_ids(length, length) for length in (3, 1, 11, 6)]
LIMITS = [6, 4, 12, 9]


def load(family: str, texts: Sequence[Encoded]) -> PreTrainedModel:
    """Return the family's tiny model as tif loads it, after the check of the texts' lengths."""
    with tempfile.TemporaryDirectory() as folder:
        architectures.make_config(family).save_pretrained(folder)
        check_length(Model(path=folder), max(len(text.input_ids) for text in texts), "a")
    model = architectures.build(family)
    use_sample_by_sample_attention(model)
    return model


def plain_logits(model: PreTrainedModel, texts: Sequence[Encoded]) -> torch.Tensor:
    """Return (K, V) logits of the answer tokens by one forward a text."""
    logits = []
    for text in texts:
        places = [t - 1 for t in range(1, len(text.input_ids)) if text.gw[t]]
        logits.append(
            model(input_ids=torch.tensor([text.input_ids]), use_cache=False).logits[0, places]
        )
    return torch.cat(logits)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, spread: float) -> None:
    error = (actual - expected).abs().max().item()
    assert error <= TOLERANCE * (1 + spread), f"WRONG by {error:.2g}"


def check_scores(family: str, wanted: str, chunk: int) -> str:
    """Compare token scores of the texts, laid out as wanted, with those of plain forwards."""
    with torch.no_grad():
        try:
            model = load(family, TEXTS)
            batching = choose_batching(wanted, model, [text.input_ids for text in TEXTS])
        except ConfigError as error:
            return refused(error)
        logits = plain_logits(model, TEXTS)
        batch = collate(TEXTS, range(len(TEXTS)), PAD)
        scores = score_tokens(model, batch, batching, chunk)
    targets = batch.input_ids[:, 1:][batch.answer[:, 1:]]
    expected = scores_of_logits(logits, targets)
    for actual, column in zip(
        (scores.logit, scores.logprob, scores.mean_logit), expected, strict=True
    ):
        assert_close(actual[batch.answer[:, 1:]], column, logits.std().item())
    return "right" if batching == wanted or wanted == "auto" else batching


def refused(error: ConfigError) -> str:
    assert len(str(error).splitlines()) == 1
    return "refused"


def check_packed(family: str) -> str:
    """Token scores in packed rows, or refused: then `auto` pads."""
    return check_scores(family, "packed", 1024)


def check_padded(family: str) -> str:
    """Token scores in padded batches."""
    return check_scores(family, "padded", 1024)


def check_chunks(family: str) -> str:
    """Token scores whose logits are computed in chunks, with the batching of `auto`."""
    return check_scores(family, "auto", CHUNK)


def check_evaluation(family: str) -> str:
    """Logits of answers that share their prompts, as the evaluation computes them, with `auto`."""
    texts = [text for group in GROUPS for text in group]
    with torch.no_grad():
        try:
            model = load(family, texts)
            batching = choose_batching("auto", model, [text.input_ids for text in texts])
        except ConfigError as error:
            return refused(error)
        expected = plain_logits(model, texts)
        actual = answer_logits(model, GROUPS, batching, PAD)
    assert_close(actual.logits, expected, expected.std().item())
    return "right"


def check_generation(family: str) -> str:
    """Greedy continuations of prompts of different lengths, whose rows end at different times."""
    with torch.no_grad():
        try:
            model = load(family, TEXTS)
            choose_batching("padded", model, [text.input_ids for text in TEXTS])
        except ConfigError as error:
            return refused(error)
        mode = choose_mode(model, PROMPTS)
        expected = [greedy(model, *pair) for pair in zip(PROMPTS, LIMITS, strict=True)]
        actual = continue_prompts(model, PROMPTS, [0], LIMITS, None, mode)
        agrees = all(
            generate(model, *given) for given in zip(PROMPTS, LIMITS, expected, strict=True)
        )
    assert actual == expected, "WRONG tokens"
    assert agrees == (family not in GENERATE_DIFFERS), "transformers' generate"
    return SEEN_IN_GENERATION[mode]


def greedy(model: PreTrainedModel, prompt: list[int], limit: int) -> list[int]:
    """Return the most likely tokens before the end token 0, the text read anew for each."""
    ids = list(prompt)
    for _ in range(limit):
        token = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
        if token == 0:
            break
        ids.append(int(token))
    return ids[len(prompt) :]


def generate(model: PreTrainedModel, prompt: list[int], limit: int, expected: list[int]) -> bool:
    """Return whether transformers' own `generate` continues a single prompt as expected."""
    ids = torch.tensor([prompt])
    options = {
        "max_new_tokens": limit,
        "do_sample": False,
        "num_beams": 1,
        "pad_token_id": PAD,
        "eos_token_id": 0,
    }
    try:
        row = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[
            0, len(prompt) :
        ].tolist()
    except (AttributeError, ValueError):
        return False
    return (row[: row.index(0)] if 0 in row else row) == expected


COLUMNS: dict[str, Callable[[str], str]] = {
    "packed": check_packed,
    "padded": check_padded,
    "chunks": check_chunks,
    "evaluation": check_evaluation,
    "generation": check_generation,
}
