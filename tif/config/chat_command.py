"""The keys of `tif chat`: which models answer, and how they are asked."""

import dataclasses

from tif.config.data import Data
from tif.config.keys import key
from tif.config.model import Model


@dataclasses.dataclass
class ChatCommand:
    """Questions to several models, answered side by side."""

    target: str | None = key(None, "the model before it unlearned (folder or hub name); of a run: "
        "known")
    retain_model: str | None = key(None, "the model that never saw the forget set, likewise")
    spans: str | None = key(None, "span file (of tif identify) whose unwanted words are marked; of "
        "a run: known")
    max_new_tokens: int = key(200, "tokens of an answer at most; of a run: its "
        "eval.max_new_tokens. Answers are greedy", at_least=1)
    memory: str = key("auto", "models in memory at once: all; one (loaded after the other, for "
        "each question); auto = all where they fit", choices=("auto", "all", "one"))
    device: str = key("auto", "cpu, cuda, ...; auto = a GPU where there is one")
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        problems = self.data.find_problems()
        if not any((self.model.path, self.target, self.retain_model)):
            problems.append("model.path: want a run folder, or a Hugging Face folder or hub name "
                "as model.path, target or retain_model, got null")
        return problems
