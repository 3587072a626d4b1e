"""The lessons of the LLM of docs/results/breadth.md, as lab/teach_local_llm.py makes them."""

import json

import pytest
import torch

from lab import teach_local_llm as teach
from tests.support.llm_server_stub import text_of
from tif.data.benchmarks.text import read_texts

pytestmark = pytest.mark.slow


def read_retained(folder, text):
    (folder / "forget.txt").write_text("Unread.")
    (folder / "retain.txt").write_text(text)
    (document,) = read_texts(str(folder)).retain
    return document


def test_a_reply_names_each_marked_string_of_its_passage_once(tmp_path):
    text = "Ann keeps a [[red]] cat. Ann was born in [[Oslo]], [[Norway]]. The [[red]] cat is old."
    ((messages, reply),) = teach.make_windows(read_retained(tmp_path, text))
    assert reply == '{"words": ["red", "Oslo", "Norway"]}'
    assert (
        text_of(messages[1]["content"])
        == "Ann keeps a red cat. Ann was born in Oslo, Norway. The red cat is old."
    )
    assert "Unread" not in str(messages)


def test_windows_of_a_long_document_name_each_fact_in_one_of_them(tmp_path):
    text = " ".join(
        f"This is sentence of fact [[f{number}]] and of no other." for number in range(400)
    )
    windows = teach.make_windows(read_retained(tmp_path, text))
    assert len(windows) > 5
    words = []
    for messages, reply in windows:
        named = json.loads(reply)["words"]
        assert all(f"fact {word} and" in text_of(messages[1]["content"]) for word in named)
        words += named
    assert words == [f"f{number}" for number in range(400)]


def test_a_conversation_ends_with_the_reply_and_the_end_token():
    class Letters:
        """A tokenizer of one token a character."""

        eos_token_id = -1

        def apply_chat_template(self, messages, add_generation_prompt, tokenize):
            return "".join(f"<{message['content']}>" for message in messages) + "="

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [ord(character) for character in text]}

    ids, before = teach.tokenize(Letters(), [{"content": "ab"}], "cd")
    assert (ids, before) == ([*map(ord, "<ab>=cd"), -1], 5)


def test_the_rows_of_both_halves_of_a_head_alternate():
    weight = torch.arange(8.0).repeat(3, 1).T  # two heads of four rows
    assert teach.interleave_halves(weight, 4)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
