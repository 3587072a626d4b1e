import pytest

from tif.identifiers.generative.prompts_and_replies import BadReply, parse_words


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"words": ["Oslo", " 1998 ", "Oslo", ""]}', ("Oslo", "1998")),
        ('```json\n{"words": []}\n```', ()),
        ('Thinking: {"words": ["No"]} or rather\n{"words": ["Yes"]} [1]', ("Yes",)),
        ('["a", "b"]', ("a", "b")),
        ('{"words": ["a"]} ["b"]', ("a",)),
        ('{not json} then {"words": ["{x}"]}', ("{x}",)),
    ],
)
def test_words_are_read_out_of_whatever_surrounds_them(content, expected):
    assert parse_words(content) == expected


@pytest.mark.parametrize(
    "content",
    [
        "",
        "Oslo",
        '{"words": "Oslo"}',
        '{"words": [1]}',
        '{"words": [["a"]]}',
        '{"w": []}',
        "[" * 9000,
        "[1]",
    ],
)
def test_what_holds_no_list_of_strings_is_no_answer(content):
    with pytest.raises(BadReply):
        parse_words(content)
