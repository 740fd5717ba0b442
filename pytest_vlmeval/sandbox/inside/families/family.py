"""The row of a class of datasets: how it is scored."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from pytest_vlmeval.sandbox.inside.families.common import Info, Outcome, Verdict
    from pytest_vlmeval.sandbox.inside.job import Job

GENERAL = "general.evaluate_general"


class Family(NamedTuple):
    """How a class of datasets is scored; functions are "module.name" in this folder.

    `adapter` evaluates a dataset's answers. The dataset is ranked by `metric`, from 0
    to `scale` once it is multiplied by `factor`; or by what the function `main` gives,
    which may add a metric that ms-vlmeval does not compute. `reference` names the
    column with the reference answers. Without a judge, "partial" counts only what
    matches exactly as right, and "required" has no score. `opened` is for classes that
    open their images, where others only name them. `asked` is for those whose rows
    bring a question, `in_turns` for those whose prompts have several turns and whose
    answers are lists of replies. `options` go to the constructor. `prompt_package` is
    a module that making prompts needs, and what installs it. `group` is a function
    that names what a row is judged together with: the rotations of a question, the
    pair or figure that a metric needs as a whole. `addons` are those of the sandbox's
    environment that prompts or scores need; all videos have one in common. `corrected`
    says that published scores have a defect whose fix changes them (`fixes.py`).

    Without an `adapter` the class's own `evaluate` is run as it is (`general.py`); then
    `column` names the column of its tables that has each answer's points, of which
    `points` are the most, `model` is what it is told of the judge where it takes only
    some, an `unnamed` judge is of its own choice, `exact_by` and `judged_by` are
    further arguments without and with one, `shown` says that its judge sees the images
    of the row, `pictured` that its table must have some, `digits` are those to which it
    rounds its metrics where they do not show it, and a row may say that its judge is
    "unused".
    """

    adapter: str = GENERAL
    metric: str = ""
    factor: float = 1
    main: str = ""
    reference: str = "answer"
    judge: Literal["optional", "partial", "required", "unused"] = "optional"
    opened: bool = False
    asked: bool = True
    in_turns: bool = False
    options: tuple[tuple[str, str], ...] = ()
    prompt_package: tuple[str, str] | None = None
    scale: float = 100
    group: str = ""
    addons: frozenset[str] = frozenset()
    corrected: bool = False
    column: str = ""
    points: float = 1
    model: str = ""
    unnamed: bool = False
    shown: bool = False
    pictured: bool = False
    exact_by: tuple[tuple[str, str], ...] = ()
    judged_by: tuple[tuple[str, str], ...] = ()
    digits: int | None = None

    @property
    def is_general(self) -> bool:
        """Whether it has no adapter of its own."""
        return self.adapter == GENERAL

    def evaluate(self, dataset: Any, answers: str, job: Job) -> Outcome:
        """Evaluate the answers in a table that the job holds."""
        outcome: Outcome = _find(self.adapter)(dataset, answers, job)
        return outcome

    def rank(
        self, info: Info, metrics: dict[str, float], verdicts: list[Verdict]
    ) -> tuple[str, float]:
        """Return the name of the main metric, and its value from 0 to `scale`."""
        if self.metric:
            return self.metric, metrics[self.metric] * self.factor
        main = self.main or "general.main_of_any"
        name, value = _find(main)(info, metrics, verdicts)
        return name, value

    def group_of(self, info: Info, row: pd.Series[Any]) -> str | None:
        """Return what a row is judged together with; None if by itself."""
        found: str | None = _find(self.group)(info, row) if self.group else None
        return found


def _find(name: str) -> Any:
    module, _, function = name.partition(".")
    return getattr(import_module(f"{__package__}.{module}"), function)
