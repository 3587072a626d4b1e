"""Words of `tif bench` and `lab.speed`: a small model, few samples, all in this process."""

SMALL = [
    "model.init={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, "
    "num_attention_heads: 2, num_key_value_heads: 1, vocab_size: 4096, tie_word_embeddings: true}",
    "data.fictitious.authors=10",
    "data.fictitious.forget_share=0.4",
    "data.fictitious.questions_per_author=4",
]


def run_here(measure, *arguments):
    """Stand in for `tif.bench.process.run_alone`, so that no time goes into a new process."""
    return measure(*arguments)
