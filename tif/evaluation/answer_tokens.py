"""Find where the scored tokens of an evaluation stand in the answers, and which are unwanted."""

from collections.abc import Mapping, Sequence

from tokenizers.decoders import DecodeStream

from tif.data.encoding import Encoder
from tif.data.samples import Sample, Span, cut_spans
from tif.evaluation.evaluate import build_questions
from tif.evaluation.questions import EvaluationSetup, Question, select_samples
from tif.records.types import PARAPHRASED, AnswerTokens

MIN_CHARACTERS = 40  # a shorter text may stand in a document by chance


def locate_answers(
    setup: EvaluationSetup,
    sets: Mapping[str, Sequence[Sample]],
    forget: Sequence[Sample],
    context: int | None,
) -> dict[str, dict[str, AnswerTokens]]:
    """Return the tokens of every evaluated answer, by set and sample's id.

    Left out are answers that the tokenizer changes (it lower-cases them, for example). `forget`:
    the samples to unlearn, with their unwanted words where these are known. `context`: tokens that
    the model can read at once.
    """
    by_id = {sample.id: sample for sample in forget}
    answers: dict[str, dict[str, AnswerTokens]] = {}
    for set_name, samples in select_samples(sets, setup.rules, setup.tasks).items():
        answers[set_name] = {}
        for question in build_questions(setup, set_name, samples, context):
            spans = find_unwanted(question.sample, by_id)
            tokens = _locate(setup.encoder, question, spans)
            if tokens:
                answers[set_name][question.sample.id] = tokens
    return answers


def find_unwanted(sample: Sample, forget: Mapping[str, Sample]) -> tuple[Span, ...] | None:
    """Return the unwanted words in an evaluated answer; None where nobody marked it.

    It is the answer of a forget sample (by its id) or a passage of one.
    """
    same = forget.get(sample.id.removesuffix("/" + PARAPHRASED.removeprefix("_")))
    if same is not None and same.answer == sample.answer:
        return same.unwanted
    if len(sample.answer) < MIN_CHARACTERS:
        return None
    for document in forget.values():
        start = document.answer.find(sample.answer)
        if document.unwanted is not None and start >= 0:
            return cut_spans(document.unwanted, start, start + len(sample.answer))
    return None


def _locate(
    encoder: Encoder, question: Question, spans: tuple[Span, ...] | None
) -> AnswerTokens | None:
    text, answer = question.texts[0], question.sample.answer
    # The first token of a text is never scored: nothing predicts it.
    scored = [t for t in range(1, len(text.input_ids)) if text.uw[t] or text.gw[t]]
    ends = find_ends(encoder, [text.input_ids[t] for t in scored], answer)
    if ends is None:
        return None
    places, gold, marked = _find_places(ends), None, question.sample.unwanted
    if marked not in (None, spans):  # an identifier marked other words, or none in this set
        gold = tuple(encoder.mark_unwanted(answer, marked or (), places))
    if spans is None:
        return AnswerTokens(tuple(ends), gold=gold)
    uw = tuple(encoder.mark_unwanted(answer, spans, places))
    return AnswerTokens(tuple(ends), uw, tuple((span.start, span.end) for span in spans), gold)


def find_ends(encoder: Encoder, ids: Sequence[int], answer: str) -> list[int] | None:
    """Return where each token of a scored answer ends in it; None if they spell another text.

    A token that adds no whole character (a part of an emoji, an end token) ends where the one
    before it does. The answer may have been cut, or lost the blanks at its edges.
    """
    stream, text, ends = DecodeStream(skip_special_tokens=True), "", []
    for token in ids:
        try:
            text += stream.step(encoder.tokenizer.backend_tokenizer, token) or ""
        except Exception:  # tokenizers has no other class: a decoder that looks back
            return None
        ends.append(len(text))
    start = answer.find(text.strip())
    if start < 0:
        return None
    start -= len(text) - len(text.lstrip())
    return [min(max(start + end, 0), len(answer)) for end in ends]


def _find_places(ends: Sequence[int]) -> list[tuple[int, int]]:
    """Return [start, end) of each token; a part of a character has the whole character's place."""
    places = list(zip([0, *ends[:-1]], ends, strict=True))
    for i in range(len(places) - 2, -1, -1):
        start, end = places[i]
        if start == end == places[i + 1][0]:
            places[i] = places[i + 1]
    return places
