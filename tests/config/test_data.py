"""Section `data`: the keys that say how a question is put to a model."""

import pytest

from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.schema import Chat, Config
from tif.training.stages import deciding_keys


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data.template=chat|Be brief."],
         "data.template: want chat, and the system message as data.chat.system; got "
         "'chat|Be brief.'"),
        (["data.chat.system=Be brief."],
         "data.chat.system: only data.template=chat reads it, got 'Be brief.' with "
         "template 'Question: {prompt}\\nAnswer:'"),
        (["data.chat.kwargs.enable_thinking=false"],
         "data.chat.kwargs: only data.template=chat reads it, got "
         "{'enable_thinking': False} with template 'Question: {prompt}\\nAnswer:'"),
        (["data.template=chat", "data.chat.date=2025-04-10"],
         "data.chat.date: want a date such as 10 Apr 2025, got "
         "'2025-04-10'"),
        (["data.template=chat", "data.chat.kwargs.date_string=today"],
         "data.chat.kwargs: date_string is set by tif "
         "(see data.chat.system and data.chat.date); want others"),
        (["data.template='{prompt}{answer} '"],
         "data.template: want nothing after {answer}, got ' '"),
    ],
)  # fmt: skip
def test_wrong_keys_of_the_prompt_format_are_one_line(words, line):
    with pytest.raises(ConfigError) as caught:
        config.read(Config, ["quickstart.yaml", *words])
    assert str(caught.value) == line


def test_the_keys_of_a_chat_are_read_from_words():
    words = ["data.template=chat", "data.chat.system=Be brief.", "data.chat.date=26 Jul 2024"]
    cfg = config.read(Config, ["quickstart.yaml", *words, "data.chat.kwargs.enable_thinking=false"])
    assert cfg.data.chat == Chat("Be brief.", "26 Jul 2024", {"enable_thinking": False})


def test_a_stages_weights_depend_on_the_chat_only_where_there_is_one():
    def keys(*words):
        return deciding_keys(config.read(Config, ["quickstart.yaml", *words]))

    assert keys("data.chat.date=26 Jul 2024") == keys()
    chat = keys("data.template=chat")
    assert chat != keys()
    for other in (
        "data.chat.system=Hi",
        "data.chat.date=26 Jul 2024",
        "data.chat.kwargs.enable_thinking=false",
    ):
        assert keys("data.template=chat", other) != chat
