"""Does the model know the forget set at all? Asked once, before training.

Called by training/callbacks/evaluation.py; judged by failures.py (`nothing_to_forget`).
"""

import numpy as np

from tif.records.types import Evaluation


def measure_knowledge(start: Evaluation, retain: Evaluation | None) -> dict[str, float]:
    """Return how much better the model predicts the forget answers than one that never saw them.

    known/retain_gain, where there is a retain model: mean over the forget answers of its loss minus
    the model's. Nats a token. Seen: 2.1 to 2.5 for TOFU's finetuned Llama-3.2-1B against its retain
    models (the logs of locuslab/open-unlearning); 0 where both know as little.

    known/wrong_gain, where the benchmark has wrong answers: mean over the questions of the wrong
    answers' loss minus the right one's, in its other wording where there is one (TOFU's wrong
    answers are variations of that). Nats a token. Seen: 0.82 to 0.88 for models that were trained
    on TOFU (Phi-1.5, Llama-3.2-1B), 0.24 to 0.36 for retain models (also Llama-2-7B): a right
    answer is a little more likely than a wrong one also where nobody knows it.

    Texts without either are judged by `words/unwanted_extracted` of targeted.py.

    Args:
        start: records of the model before training.
        retain: the retain model's.
    """
    if "forget" not in start.sets:
        return {}
    records, measures = start.sets["forget"].records, {}
    if retain is not None and "forget" in retain.sets:
        losses = {record.id: record.loss for record in retain.sets["forget"].records}
        gains = [losses[record.id] - record.loss for record in records if record.id in losses]
        if gains:
            measures["known/retain_gain"] = float(np.mean(gains))
    wrong_gains = []
    for record in records:
        if record.perturbed_losses:
            has_other_wording = record.paraphrased_loss is not None
            right = record.paraphrased_loss if has_other_wording else record.loss
            wrong_gains.append(float(np.mean(record.perturbed_losses)) - float(right or 0.0))
    if wrong_gains:
        measures["known/wrong_gain"] = float(np.mean(wrong_gains))
    return measures
