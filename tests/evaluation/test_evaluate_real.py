"""Records of a pretrained model on real questions, against plain transformers text by text."""

import pytest
import torch
import transformers

from tests.support.plain_evaluation import TEMPLATE, plain_greedy, plain_loss
from tif.config.schema import Eval, Model
from tif.data.benchmarks.tofu import read_tofu
from tif.data.encoding import Encoder
from tif.evaluation.evaluate import evaluate
from tif.evaluation.questions import EvaluationSetup
from tif.models import load as models

NEW_TOKENS = 40
pytestmark = [pytest.mark.slow, pytest.mark.guard, pytest.mark.real]


@pytest.fixture(scope="module")
def sets(shared):
    all_sets = read_tofu(str(shared / "tofu"), "forget01").sets
    return {name: samples[:3] for name, samples in all_sets.items()}


@pytest.fixture(scope="module")
def expected(smollm2, sets):
    """By sample: loss and tokens of the answer, losses of the other answers, the generated text."""
    net = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)

    def greedy_text(sample):
        prompt = tokenizer(f"Question: {sample.prompt}\nAnswer:")["input_ids"]
        new = plain_greedy(net, prompt, tokenizer.eos_token_id, NEW_TOKENS)
        return tokenizer.decode(new, skip_special_tokens=True).strip()

    def losses(sample, answers):
        return [
            plain_loss(net, tokenizer, sample, answer)[0]
            for answer in answers
            if answer is not None
        ]

    return {
        s.id: (
            *plain_loss(net, tokenizer, s, s.answer),
            losses(s, [s.paraphrased_answer]),
            losses(s, s.perturbed_answers),
            greedy_text(s),
        )
        for samples in sets.values()
        for s in samples
    }


@pytest.mark.parametrize(("batching", "tokens_per_batch"), [("packed", 4096), ("padded", 512)])
def test_records_of_a_real_model_are_those_of_plain_loops(
    smollm2, sets, expected, batching, tokens_per_batch
):
    cfg = Model(path=str(smollm2))
    encoder = Encoder(models.load_tokenizer(cfg, ()), TEMPLATE)
    policy = models.load_policy(cfg, encoder.tokenizer, 0)
    asking = Eval(max_new_tokens=NEW_TOKENS, tokens_per_batch=tokens_per_batch)
    evaluation = evaluate(policy, sets, EvaluationSetup(encoder, asking, batching), "m")
    records = [record for record_set in evaluation.sets.values() for record in record_set.records]
    assert [record.id for record in records] == list(expected)
    assert len(records) == 12
    for record in records:
        loss, tokens, paraphrased, perturbed, greedy_text = expected[record.id]
        assert record.tokens == tokens
        assert record.loss == pytest.approx(loss, abs=1e-5, rel=1e-5)
        assert [x for x in [record.paraphrased_loss] if x is not None] == pytest.approx(
            paraphrased, abs=1e-5, rel=1e-5
        )
        assert list(record.perturbed_losses) == pytest.approx(perturbed, abs=1e-5, rel=1e-5)
        assert record.generated == greedy_text
    assert len({record.generated for record in records}) > 6
