"""A multiple-choice task of three questions for lm-eval, and its accuracy by a plain loop."""

import json

import torch
import transformers

FACTS = [
    {"question": "Where was Mira born?", "choices": ["in Oslo", "in winter"], "answer": 0},
    {"question": "Who wrote it?", "choices": ["a judge", "Jaime Vasquez"], "answer": 1},
    {
        "question": "Known for?",
        "choices": ["true crime", "short stories about the sea"],
        "answer": 0,
    },
]

TASK = """task: tif_facts
dataset_path: json
dataset_kwargs: {{data_files: {file}}}
test_split: train
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def task_folder(folder):
    """Write the task into a new folder and return the folder."""
    folder.mkdir()
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FACTS))
    (folder / "facts.yaml").write_text(TASK.format(file=folder / "facts.jsonl"))
    return folder


def plain_accuracy(folder, facts=FACTS):
    """Return the share of questions whose right choice is the most likely continuation."""
    net = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer, hits = transformers.AutoTokenizer.from_pretrained(folder), 0
    for row in facts:
        sums = []
        for choice in row["choices"]:
            before = tokenizer(f"Question: {row['question']}\nAnswer:")["input_ids"]
            ids = tokenizer(f"Question: {row['question']}\nAnswer: {choice}")["input_ids"]
            with torch.no_grad():
                logp = net(torch.tensor([ids])).logits[0].log_softmax(-1)
            sums.append(sum(logp[t - 1, ids[t]].item() for t in range(len(before), len(ids))))
        hits += sums.index(max(sums)) == row["answer"]
    return hits / len(facts)
