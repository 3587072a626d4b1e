"""What shares a subject: an author's questions, the passages of a document.

It is the unit of every interval, test and split: questions about one author are not independent. A
group is "<unit>/<name>", as "author/198". Called where records are made, read or converted.
"""

import re

QUESTIONS_OF_AUTHOR = 20  # of TOFU, one after the other
# Form of a sample's id -> unit; the first parenthesis is the group's name.
FORMS = {
    r"fictitious/author(\d+)/.*": "author",
    r"lume/(.*)(?:sc|qa)\d+": "document",
    r"((?:verbmem|privleak)_[a-z]+/\d+)": "document",  # of MUSE: a passage is a row
    r"((?:forget|retain|holdout)/\d+)/\d+": "document",  # passages of one's own documents
}


def group_of_id(sample_id: str) -> str | None:
    """Return the group that a sample's id says; None where it says none."""
    match = re.fullmatch(r"tofu/(?:(holdout\d+)/)?(\d+)", sample_id)
    if match:
        return author_of_row(int(match[2]), match[1])
    for form, unit in FORMS.items():
        match = re.fullmatch(form, sample_id, re.DOTALL)
        if match:
            return f"{unit}/{match[1]}"
    return None


def author_of_row(row: int, split: str | None = None) -> str:
    """Return the group of a row of TOFU, counted from an author's first question."""
    number = str(row // QUESTIONS_OF_AUTHOR)
    return "/".join(filter(None, ("author", split, number)))
