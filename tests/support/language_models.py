"""Tiny language models in Hugging Face folders: BERTs with three kinds of tokenizers, Llamas."""

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.support import tiny_models
from tif.data.samples import Sample

SENTENCES = (
    "The author was born in Oslo, in the winter of 1961.",
    "Her father was a baker and her mother was a judge.",
    "The author is known for true crime and for short stories.",
    "She has written novels, essays and short stories about the sea.",
    "He was born in the city of Basel, where his mother was a baker.",
)
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Han, Arabic with marks and digits, emoji beyond the BMP (families, flags, skin tones), combining
# marks, code.
TEXTS = {
    "chinese": "王小明于1987年出生在上海。他的父亲是一名医生，母亲是教师！他写了《夜航》吗？是的。",
    "arabic": "وُلِدَ الكاتِبُ في مدينة القاهرة عام ١٩٨٧. كان والده طبيبًا، وكانت أمّه معلّمة؟ نعم.",
    "emoji": "Ana 👩🏽\u200d🚀 flew 🇧🇷→🇩🇪 in 2019 — “wow” 𝒳𝟚! Cafe\u0301 zoë… 😀😀 ok 👨‍👩‍👧‍👦.",
    "code": "def f(x_1, *, k=3.5):\n    # naïve\n"
    "    return [g(x_1)['a'] ** k for _ in range(10)]  # ok\n",
}


def bert_tokenizer(words=()):
    """Return a lower-casing WordPiece tokenizer: words of SENTENCES, letters, and `words`."""
    plain = {w for s in SENTENCES for w in s.lower().replace(",", " ,").replace(".", " .").split()}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = [*SPECIALS, *sorted(plain | set(words)), *letters, *("##" + c for c in letters)]
    ids = {w: i for i, w in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, SPECIALS, strict=True)), model_max_length=64
    )


def cased_tokenizer(kind):
    """Return a cased tokenizer.

    Args:
        kind: "bytes" is like RoBERTa's: BPE, the blank before a word is part of its first piece.
            "pieces" is like XLM-R's: Unigram.
    """
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind == "bytes":
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=special,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
    else:
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer, tokenizer.decoder = (
            pre_tokenizers.Metaspace(),
            decoders.Metaspace(),
        )
        trainer = trainers.UnigramTrainer(
            vocab_size=160, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=62,
    )


def bert(folder, steps=0, words=(), positions=64, tokenizer=None):
    """Write a BERT of two layers, trained for `steps` on SENTENCES; return its folder's path."""
    tokenizer = tokenizer or bert_tokenizer(words)
    torch.manual_seed(0)
    net = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=positions,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    data = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3)
    for _ in range(steps):
        real = data["attention_mask"].bool() & (data["input_ids"] > 4)
        masked = real & (torch.rand(real.shape) < 0.2)
        ids = data["input_ids"].masked_fill(masked, tokenizer.mask_token_id)
        labels = data["input_ids"].masked_fill(~masked, -100)
        if masked.any():
            net(input_ids=ids, attention_mask=data["attention_mask"], labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    net.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def llama(folder, tokenizer, seed=0, **keys):
    """Write a Llama of two layers with random weights; return its folder's path."""
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    net = tiny_models.model("llama", seed, **ids, **{"max_position_embeddings": 1024} | keys)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def sample(answer, prompt="", name="s"):
    """Return a sample; a document where there is no prompt."""
    return Sample(name, prompt, answer)


def unwanted(sample):
    """Return the texts of a sample's spans and check that they are sorted, apart and inside."""
    at = -1
    for span in sample.unwanted:
        assert at < span.start < span.end <= len(sample.answer)
        at = span.end
    return [sample.answer[s.start : s.end] for s in sample.unwanted]
