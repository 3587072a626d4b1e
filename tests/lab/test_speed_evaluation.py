"""The two ways of what=eval on a tiny model: the same numbers, each counted."""

import json

import pytest
import torch

from lab.speed import __main__ as bench
from lab.speed import evaluation
from tif.config.schema import Model
from tif.data.encoding import Encoded
from tif.models.load import load_policy

pytestmark = pytest.mark.slow
FEW = [
    "data.fictitious.authors=4",
    "data.fictitious.questions_per_author=3",
    "data.fictitious.forget_share=0.3",
]


def test_both_ways_say_the_same_of_the_same_texts(llama, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "PEERS_BATCH_SIZE", 3)
    threads = f"threads={torch.get_num_threads()}"
    words = ["what=eval", f"model.path={llama}", *FEW, "questions=2", "max_new_tokens=5", threads]
    assert bench.main([*words, "--json"]) == 0
    scoring, generating, both = json.loads(capsys.readouterr().out)
    # 2 x 2 questions with 7 answers (original, paraphrased, 5 wrong), 2 x 2 with 4 (no paraphrase)
    assert (scoring["texts"], generating["texts"], both["texts"]) == (44, 8, 52)
    assert scoring["largest_difference"] < 1e-5
    assert generating["different_texts"] == 0
    assert [row["part"] for row in (scoring, generating, both)] == ["scoring", "generating", "both"]


def test_peers_loss_is_the_cross_entropy_of_the_answer(llama):
    policy = load_policy(Model(path=llama), None, 0).eval()
    text = Encoded("a", [5, 9, 3, 7], [False] * 4, [False, False, True, True])
    with torch.no_grad():
        logprobs = policy(input_ids=torch.tensor([text.input_ids])).logits[0].log_softmax(-1)
        expected = -(logprobs[1, 3] + logprobs[2, 7]) / 2
        (actual,) = evaluation.score_padded(policy, [text], 0)
    assert actual == pytest.approx(expected.item(), abs=1e-5)
