"""The classes of datasets that can be scored: one row for each, and only here.

Both sides read the table, so nothing is imported for it; the adapters that the rows
name need what only the sandbox has.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from pytest_vlmeval.sandbox.inside.families.common import Info, Outcome, Verdict
    from pytest_vlmeval.sandbox.inside.job import Job


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
    """

    adapter: str
    metric: str = ""
    factor: float = 1
    main: str = ""
    reference: str = "answer"
    judge: Literal["optional", "partial", "required"] = "optional"
    opened: bool = False
    asked: bool = True
    in_turns: bool = False
    options: tuple[tuple[str, str], ...] = ()
    prompt_package: tuple[str, str] | None = None
    scale: float = 100
    group: str = ""
    addons: frozenset[str] = frozenset()
    corrected: bool = False

    def evaluate(self, dataset: Any, answers: str, job: Job) -> Outcome:
        """Evaluate the answers in a table that the job holds."""
        outcome: Outcome = _find(self.adapter)(dataset, answers, job)
        return outcome

    def rank(
        self, info: Info, metrics: dict[str, float], verdicts: list[Verdict]
    ) -> tuple[str, float]:
        """Return the name of the main metric, and its value from 0 to `scale`."""
        if not self.main:
            return self.metric, metrics[self.metric] * self.factor
        name, value = _find(self.main)(info, metrics, verdicts)
        return name, value

    def group_of(self, info: Info, row: pd.Series[Any]) -> str | None:
        """Return what a row is judged together with; None if by itself."""
        found: str | None = _find(self.group)(info, row) if self.group else None
        return found


def _find(name: str) -> Any:
    module, _, function = name.partition(".")
    return getattr(import_module(f"{__name__}.{module}"), function)


FAMILIES: Mapping[str, Family] = {
    "ImageMCQDataset": Family(
        "choices.evaluate_choices",
        main="choices.main_of_choices",
        group="choices.group_of_rotations",
        corrected=True,
    ),
    "MMMUDataset": Family(
        "choices.evaluate_choices", main="choices.main_of_choices", corrected=True
    ),
    "ImageYORNDataset": Family(
        "choices.evaluate_yes_no",
        main="choices.main_of_yes_no",
        group="choices.group_of_yes_no",
        corrected=True,
    ),
    "ImageVQADataset": Family("texts.evaluate_open", "Overall", corrected=True),
    "OCRBench": Family("texts.evaluate_ocr", main="texts.main_of_ocr", corrected=True),
    "MTVQADataset": Family("texts.evaluate_mtvqa", "Average", corrected=True),
    "MathVision": Family(
        "maths.evaluate_maths", "Overall/acc", judge="partial", corrected=True
    ),
    "MathVista": Family(
        "maths.evaluate_maths", "Overall/acc", judge="partial", corrected=True
    ),
    "MMVet": Family("judged.evaluate_mmvet", "Overall/acc", judge="required"),
    "LLaVABench": Family(
        "judged.evaluate_llava",
        "overall/Relative Score (main)",
        reference="gpt4_ans",
        judge="required",
    ),
    "MMDUDataset": Family(
        "judged.evaluate_conversations",
        "all/Overall Score",
        judge="required",
        in_turns=True,
    ),
    # The model that ms-vlmeval wants to know decides how pages are put together; as
    # for GPT-4, each page is an image (dataset/mmlongbench.py:461).
    "MMLongBench": Family(
        "judged.evaluate_documents",
        "overall_acc/avg_score",
        100,
        judge="required",
        opened=True,
        options=(("model", "GPT4"),),
        prompt_package=("fitz", "pymupdf"),
        addons=frozenset({"documents"}),
        corrected=True,
    ),
    # CIDEr is ten times a cosine, in hundredths.
    "ImageCaptionDataset": Family(
        "texts.evaluate_captions",
        "CIDEr",
        asked=False,
        scale=1_000,
        addons=frozenset({"captions"}),
    ),
    "VCRDataset": Family(
        "texts.evaluate_covered_texts",
        "Exact_Match",
        100,
        addons=frozenset({"vcr"}),
    ),
    "VideoMME": Family(
        "videos.evaluate_video_choices", "overall/overall", 100, corrected=True
    ),
    # Of the three points that an answer gets at most.
    "MMBenchVideo": Family(
        "videos.evaluate_graded_videos",
        "coarse_all/Overall",
        100 / 3,
        judge="required",
    ),
}


def find_family(info: Info) -> Family:
    """Return the row of a dataset's class; raises VlmEvalError."""
    family = FAMILIES.get(info["class_name"])
    if family is None:
        raise VlmEvalError(
            f"{info['name']} cannot be scored: ms-vlmeval's {info['class_name']} is "
            f"not among the classes that can ({', '.join(FAMILIES)}). "
            "--vlm-mode=infer collects its answers."
        )
    return family
