"""Paraphrases: what is asked, and the best of all wordings, question by question."""

import dataclasses

import pytest

from tests.support import attacked
from tif.audit import answers
from tif.audit.attacks import paraphrase


def test_each_wording_is_asked_and_the_best_counts(monkeypatch):
    first = dataclasses.replace(attacked.SAMPLES[0], paraphrased_prompt="who was born where ?")
    subject = attacked.subject(attacked.tiny_llama(attacked.word_tokenizer()))
    read = []

    def answer(subject, inputs, prompts):
        read.extend(subject.encoder.tokenizer.decode(prompt) for prompt in prompts)
        return ["in Rome" if i in (1, 2) else "no" for i in range(len(prompts))]

    monkeypatch.setattr(answers, "answer_greedily", answer)
    outcome = paraphrase.run(subject, attacked.inputs((first, attacked.SAMPLES[1])))
    assert len(read) == 9 + 8  # as asked, (paraphrased,) four rewordings, three languages
    assert read[:2] == [
        "Question : where is Ann ? Answer :",
        "Question : who was born where ? Answer :",
    ]
    assert outcome.measures["as asked"] == [0, 0]
    assert outcome.measures["paraphrased"] == [1, None]
    assert outcome.measures["reworded"] == pytest.approx([0.25, 0])
    assert outcome.measures["any wording"] == [1, 0]
