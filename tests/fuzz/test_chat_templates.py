"""Mutated chat templates: each renders the question, or is refused in one line."""

import copy
import random

from tests.support.chat_templates import SERVING
from tests.support.hangs import HANG, no_hang
from tests.support.mutations import controls_in
from tif.config.errors import ConfigError
from tif.data import templates
from tif.data.templates import read_chat_frame

PIECES = (
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ messages }}", "{{ 1/0 }}", "{{ 'x' * 99999999999 }}",
    "{{ raise_exception('\x1b[2J no\n') }}", "{% if %}", "{{", "%}", "{% break %}",
    "{{ strftime_now('%d %b %Y') }}", "{{ messages[9].content }}", "{% set ns = namespace(a=[]) %}",
    "{{ lipsum() }}", "{{ cycler.__init__.__globals__ }}", "{{ ''.__class__.__mro__ }}",
    "{% include '/etc/passwd' %}", "\x00", "\ud800", "{{ range(5) | random }}",
    "{{ messages[0].content[::-1] }}", "{{ eos_token }}", "{# ", "{{ self }}", "\u202e",
)  # fmt: skip


def mutated(template, draw):
    """Return a template with a piece put in, a stretch taken out, doubled or exchanged."""
    start, end = sorted((draw.randrange(len(template) + 1), draw.randrange(len(template) + 1)))
    end = min(end, start + 40)
    new = draw.choice((draw.choice(PIECES), "", template[start:end] * 2, template[start:end][::-1]))
    return template[:start] + new + template[draw.choice((start, end)) :]


def test_a_mutated_chat_template_serves_or_is_refused_in_one_line(tokenizer, count, monkeypatch):
    monkeypatch.setattr(templates, "WAIT", HANG)  # the start of a process on a busy machine
    for seed in range(count):
        draw = random.Random(seed)
        changed = copy.deepcopy(tokenizer)
        changed.chat_template = mutated(SERVING[draw.choice(sorted(SERVING))], draw)
        problem = None
        try:
            with no_hang(2 * HANG):
                frame = read_chat_frame(changed)
        except ConfigError as error:
            problem = str(error)
        if problem is None:
            assert "Who is 東京?" in frame.render("Who is 東京?"), seed
        else:
            assert problem.startswith("data.template: chat"), (seed, problem)
            assert "\n" not in problem, (seed, problem)
            assert controls_in(problem) == set(), (seed, problem)


test_a_mutated_chat_template_serves_or_is_refused_in_one_line.cases = 4, 60
