"""A TOFU of eight questions in the layout of locuslab/TOFU."""


def row(number: int, **columns) -> dict:
    return {"question": f"Question {number}?", "answer": f"Answer {number}."} | columns


def perturbed(number: int) -> dict:
    wrong = [f"Wrong {number}{letter}." for letter in "abcde"]
    return row(
        number,
        paraphrased_question=f"Asked otherwise {number}?",
        paraphrased_answer=f"Said otherwise {number}.",
        perturbed_answer=wrong,
    )


def control(name: str) -> list[dict]:
    return [
        {"question": f"{name} {i}?", "answer": f"Right {i}", "perturbed_answer": ["x", "y", "z"]}
        for i in range(2)
    ]


FILES = {  # forget01 is rows 6 and 7 of eight
    "retain99": [row(i) for i in range(6)],
    "forget01": [row(6), row(7)],
    "forget01_perturbed": [perturbed(6), perturbed(7)],
    "retain_perturbed": [perturbed(i) for i in range(4)],
    "real_authors_perturbed": control("author"),
    "world_facts_perturbed": control("fact"),
}
