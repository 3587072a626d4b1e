"""The two ways of tif.bench what=eval on a tiny model: the same numbers, each counted."""

import json

import pytest
import torch

from tif.bench import command as bench
from tif.bench.evaluation import Work, _peers_scores, measure
from tif.config.errors import ConfigError
from tif.config.schema import Data, Fictitious, Model
from tif.data.encoding import Encoded
from tif.models.load import load_policy

DATA = Data(fictitious=Fictitious(authors=4, questions_per_author=3, forget_share=0.3))


def test_both_ways_say_the_same_of_the_same_texts(llama):
    threads = torch.get_num_threads()
    found = measure(Model(path=llama), DATA, Work(questions=2, max_new_tokens=5, batch_size=3), threads)
    scoring, generating, both = found
    # 2 x 2 questions with 7 answers (original, paraphrased, 5 wrong), 2 x 2 with 4 (original, 3 wrong)
    assert (scoring["texts"], generating["texts"], both["texts"]) == (44, 8, 52)
    assert scoring["largest_difference"] < 1e-5
    assert generating["different_texts"] == 0
    assert [row["part"] for row in found] == ["scoring", "generating", "both"]


def test_peers_way_is_cross_entropy_of_the_answer(llama):
    policy = load_policy(Model(path=llama), None, 0).eval()
    text = Encoded("a", [5, 9, 3, 7], [False] * 4, [False, False, True, True])
    with torch.no_grad():
        logprobs = policy(input_ids=torch.tensor([text.input_ids])).logits[0].log_softmax(-1)
        expected = -(logprobs[1, 3] + logprobs[2, 7]) / 2
        assert _peers_scores(policy, [text], 0, 4) == pytest.approx([expected.item()], abs=1e-5)


def test_the_command_measures_what_it_is_told_to(llama, capsys):
    words = ["what=eval", f"model.path={llama}", "data.fictitious.authors=4", "data.fictitious.questions_per_author=3"]
    words.append("data.fictitious.forget_share=0.3")
    threads = torch.get_num_threads()
    assert bench.main([*words, "questions=1", "max_new_tokens=2", f"threads={threads}", "--json"]) == 0
    assert [row["texts"] for row in json.loads(capsys.readouterr().out)] == [22, 4, 26]
    assert bench.main(["what=eval"]) == 2
    assert "model.path: want a model that was finetuned on TOFU" in capsys.readouterr().err


def test_a_model_that_is_none_is_told_at_once():
    with pytest.raises(ConfigError, match="model.path: no folder nowhere"):
        measure(Model(path="nowhere"), DATA, Work())
