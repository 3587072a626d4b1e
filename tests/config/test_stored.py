"""Each key of a stored configuration counts where a run is looked at, or is dropped, by name."""

import pytest
from omegaconf import OmegaConf

from tests.support.run_folders import rewrite
from tif.config import load as config
from tif.config import stored
from tif.config.errors import ConfigError
from tif.config.keys import list_keys
from tif.config.schema import Config

HOSTILE = (
    "model.trust_remote_code=true", "model.attention=x/kernel", "model.base=x/y",
    "loss.forget=os:system", "loss.alternates.kind=generated",
    "identifier.generative.base_url=http://x/v1", "identifier.generative.cache=/x",
    "identifier.causal_lm.model=x/y", "run.folder=/x", "run.name=/x", "run.resume=/x",
    "logger.wandb.enabled=true", "eval.lm_eval.folder=/x", "eval.benchmarks=[lm-eval:x]",
    "eval.audit=[sample]", "tofu.masks=x/y", "stage=target", "stages.target.path=/x",
    "include=[/x]", "a_key_of_tomorrow=1", "data.key_of_tomorrow=1",
)  # fmt: skip
COUNTED = """
run.seed data.benchmark data.path data.split data.holdout data.split_text data.max_retain data.train
data.request data.template data.chat.system data.chat.date data.chat.kwargs data.max_tokens
data.overlap data.batch_size data.max_tokens_per_batch data.batching data.fictitious.authors
data.fictitious.questions_per_author data.fictitious.forget_share data.fictitious.seed
data.fictitious.shared_facts data.fictitious.interleaved data.fictitious.language
data.fictitious.wordings data.fictitious.forget_wordings identifier.kind identifier.path
identifier.words identifier.patterns identifier.rule identifier.grow identifier.random.share
identifier.random.seed model.path model.tokenizer model.dtype model.attention optimizer.lr
trainer.accelerator eval.protocol eval.paraphrased_questions eval.max_samples.forget
eval.max_samples.retain eval.max_samples.real_authors eval.max_samples.world_facts
eval.max_new_tokens eval.tokens_per_batch eval.retain_records eval.retain_model stages
"""


@pytest.fixture(scope="module")
def text():
    """The text of a run's config.yaml."""
    return config.to_yaml(config.load(["quickstart.yaml"]))


@pytest.fixture
def path(text, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    return tmp_path / "config.yaml"


def test_a_key_counts_only_if_it_is_named_here():
    """A new key of a section that counts fails here, until somebody has looked at what it does."""
    names = {name for name, _, _ in list_keys(Config())}
    assert set(COUNTED.split()) <= names
    assert stored.list_counted() == COUNTED.split()


@pytest.mark.parametrize("word", HOSTILE)
def test_what_could_act_leaves_no_trace_in_what_is_read(path, word):
    expected = config.read_stored(path)
    rewrite(path.parent, word)
    actual = config.read_stored(path)
    if word.startswith("model.attention"):
        assert actual.model.attention is None
    assert actual == expected


def test_what_a_run_read_and_how_it_asks_counts(path):
    words = ("data.fictitious.seed=3", "eval.max_new_tokens=7", "model.dtype=bfloat16")
    rewrite(path.parent, *words, "run.seed=5", "model.attention=eager")
    actual, expected = config.read_stored(path), config.load(["quickstart.yaml"])
    assert (actual.data.fictitious.seed, actual.eval.max_new_tokens) == (3, 7)
    assert (actual.model.dtype, actual.model.attention) == ("bfloat16", "eager")
    assert (actual.run.seed, actual.model.path) == (5, "target")
    assert actual.stages == dict.fromkeys(expected.stages)
    assert actual.data.prompts == expected.data.prompts


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("data", 5, "data: want a mapping of keys"),
        ("data.fictitious.seed", -1, "data.fictitious.seed: must be >= 0, got -1"),
        ("eval.protocol", "mine", "eval.protocol: want one of"),
        ("data.template", [1], "data.template: want str"),
        ("run.seed", "x", "run.seed: want int"),
        ("model.dtype", None, "model.dtype: want str"),
    ],
)
def test_a_value_that_a_key_does_not_take_is_one_line(path, text, key, value, problem):
    content = OmegaConf.create(text)
    OmegaConf.update(content, key, value, merge=False)
    path.write_text(OmegaConf.to_yaml(content))
    with pytest.raises(ConfigError) as caught:
        config.read_stored(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: {problem}")


def test_a_variable_of_the_environment_is_not_filled_in(path, monkeypatch):
    monkeypatch.setenv("SECRET", "of-mine")
    path.write_text('data: {template: "${oc.env:SECRET} {prompt}"}\n')
    line = r"data\.template: want plain values, got '\$\{oc\.env:SECRET\} \{prompt\}'"
    with pytest.raises(ConfigError, match=line):
        config.read_stored(path)
