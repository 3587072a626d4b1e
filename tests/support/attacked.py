"""Models for the attacks: a tokenizer of words, samples, and models that say what a table says."""

import types

import tokenizers
import torch
import transformers

from tif.audit.attack import AttackInputs
from tif.audit.keys import make_settings
from tif.config.model import Model
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark, Sample, Span

TEXTS = [
    "Question : Answer : who where is was born in ? . Ann Bob Rome Oslo Sure , I know this The "
    "answer : You are the author's closest friend and remember every detail of life as such Answer "
    "sure yes no red blue"
]


def sample(number, prompt, answer, unwanted):
    start = answer.index(unwanted)
    return Sample(f"s{number}", prompt, answer, (Span(start, start + len(unwanted)),))


SAMPLES = (
    sample(0, "where is Ann ?", "Ann was born in Rome .", "Rome"),
    sample(1, "where is Bob ?", "Bob was born in Oslo .", "Oslo"),
)


def word_tokenizer(texts=TEXTS):
    words = list(dict.fromkeys(" ".join(texts).split()))
    vocab = {"<end>": 0, "<unk>": 1} | {word: i + 2 for i, word in enumerate(words)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    plain.decoder = tokenizers.decoders.WordPiece(prefix="##", cleanup=False)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<end>", pad_token="<end>", unk_token="<unk>"
    )


def tiny_llama(tokenizer, seed=0, **keys):
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=None, eos_token_id=0, pad_token_id=0, tie_word_embeddings=False, **keys,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.LlamaForCausalLM(config).eval()


def subject(model, tokenizer=None, template="Question : {prompt}\nAnswer :", role="unlearned"):
    """Return a subject whose model is in memory; `load` gives a copy of it."""
    import copy

    tokenizer = tokenizer or word_tokenizer()
    return types.SimpleNamespace(
        role=role, model=model, encoder=Encoder(tokenizer, template), config=model.config,
        section=Model(path="m"), device=torch.device("cpu"),
        load=lambda **keys: copy.deepcopy(model), unload=lambda: None,
    )  # fmt: skip


def inputs(samples=SAMPLES, retain=(), **keys):
    settings = make_settings(**keys)
    settings.eval.max_new_tokens = 8
    return AttackInputs(
        settings, Benchmark("b", tuple(samples), tuple(retain), {"forget": tuple(samples)}), {}
    )
