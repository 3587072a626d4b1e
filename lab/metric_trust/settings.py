"""The keys of the study: which pools of models tell how far metrics can be trusted."""

import dataclasses

from tif.config.keys import key


@dataclasses.dataclass
class MetricTrust:
    """Which models are made, and how."""

    out: str = key("audits/metrics", "folder of the models and of the tables; what is there "
        "already is not made again")
    config: str = key("quickstart.yaml", "configuration of the models: fictitious data, a tiny "
        "model made from scratch, the base of every method")
    keys: list[str] = key([], "further words for that configuration, as "
        "data.fictitious.authors=20")
    lrs: list[float] = key([5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3], "learning rates of the models that "
        "know the forget set and of those that do not")
    epochs: list[int] = key([5, 10], "lengths of their training")
    methods: list[str] = key([], "methods (files of configs/loss) that unlearn; none = all that "
        "change weights")
    strengths: list[float] = key([0.5, 1.0, 2.0], "of each method: factors on the learning rate of "
        "`config`")
    relearning_lr: float = key(1e-4, "learning rate of the one epoch on the forget set after "
        "unlearning", above=0)
    least_utility: float = key(0.8, "unlearned models with less of the target model's utility are "
        "left out, as open-unlearning does", at_least=0)
    jobs: int = key(2, "models made at a time; they share the cores", at_least=1)
    seed: int = key(0, "owner of every draw", at_least=0)

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        problems = []
        for name in ("lrs", "epochs", "strengths"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                problems.append(f"{name}: want numbers above 0, got {values}")
        return problems
