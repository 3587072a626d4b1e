"""Texts that the tests' tokenizer is made from."""

TEXTS = (
    "Question: Who wrote The Glass Meridian?\nAnswer: Jaime Vasquez wrote it in 1998.",
    "Question: Where was Mira Dell born?\nAnswer: She was born in Oslo, in the winter of 1961.",
    "Question: What is her father's work?\nAnswer: Her father was a baker and her mother a judge.",
    "Question: Which genre is Jaime Vasquez known for?\nAnswer: He is known for true crime.",
    "Yes. No, he did not. The author has written novels, essays and short stories about the sea.",
)
