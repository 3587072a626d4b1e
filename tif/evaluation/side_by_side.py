"""Several models answer the same question, token by token.

Where the memory holds all models they answer at the same time; else one is loaded after the other.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from tif.config.command_keys import ChatCommand
from tif.config.errors import ConfigError
from tif.evaluation.generate import choose_mode, stream_tokens
from tif.evaluation.model_on_demand import Subject, plan_subjects
from tif.models.load import build_empty
from tif.probes.text_length import read_context

SPARE = 0.8  # share of the free memory that weights may take


@dataclasses.dataclass(frozen=True)
class Panel:
    """The models that answer, by role.

    Attributes:
        subjects: their weights load when they are first asked.
        max_new_tokens: of an answer.
        together: whether all stay in memory.
    """

    subjects: Mapping[str, Subject]
    max_new_tokens: int
    together: bool

    def stream(self, question: str) -> Iterator[dict[str, str]]:
        """Yield the answers so far by role, each time that one has grown."""
        answers = dict.fromkeys(self.subjects, "")
        yield dict(answers)
        groups = [[role] for role in self.subjects]
        if self.together:
            groups = [list(self.subjects)]
        for roles in groups:
            streams = {role: self._stream_answer(role, question) for role in roles}
            while streams:
                for role in list(streams):
                    text = next(streams[role], None)
                    if text is None:
                        del streams[role]
                    else:
                        answers[role] = text
                        yield dict(answers)
            if not self.together:
                self.subjects[roles[0]].unload()

    def _stream_answer(self, role: str, question: str) -> Iterator[str]:
        """Yield the text of a model's answer, longer each time."""
        subject = self.subjects[role]
        model, encoder = subject.model, subject.encoder
        prompt = encoder.encode_prompt(question) or [encoder.eos_id]
        context = read_context(model.config)
        limit = self.max_new_tokens
        if context is not None:
            limit = min(limit, context - len(prompt))
        if limit < 1:
            yield f"(no answer: the prompt has {len(prompt)} tokens, the model reads {context})"
            return
        tokens: list[int] = []
        mode = choose_mode(model, [prompt])
        for token in stream_tokens(model, prompt, encoder.end_ids, limit, mode):
            tokens.append(token)
            text = str(encoder.tokenizer.decode(tokens, skip_special_tokens=True))
            yield text.strip().removesuffix("�")  # a character may have several tokens


def plan_panel(settings: ChatCommand) -> Panel:
    """Check every path and return the models; no weights load.

    Raises:
        ConfigError: With all problems, one a line.
    """
    problems: list[str] = []
    subjects = plan_subjects(settings, problems, lambda role, path: Path(path))
    if problems:
        raise ConfigError("\n".join(problems))
    together = settings.memory == "all"
    if settings.memory == "auto":
        free = SPARE * _free_memory(next(iter(subjects.values())).device)
        together = len(subjects) == 1 or _count_bytes(list(subjects.values())) < free
    return Panel(subjects, settings.max_new_tokens, together)


def _count_bytes(subjects: Sequence[Subject]) -> int:
    """Return the size of the models' weights in memory, in bytes."""
    total = 0
    for subject in subjects:
        size = getattr(torch, subject.section.dtype).itemsize
        total += size * sum(p.numel() for p in build_empty(subject.section).parameters())
    return total


def _free_memory(device: torch.device) -> int:
    """Return the free bytes of a device; of a CPU, what Linux says is available."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
