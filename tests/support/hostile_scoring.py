"""Many hostile texts through a dataset's scoring at once, beside answers that are fair.

A copy of a row is made for each text, so that one call scores them all with the
dataset's own rows between them.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import JudgeQuestion, JudgeReply, PreparedDataset
from pytest_vlmeval.sandbox.calls import ScoredDataset, score_in_sandbox
from pytest_vlmeval.sandbox.process import SandboxFault
from tests.support.conformance import repository_folder
from tests.support.sandbox_tables import FIXTURES, seed_rows, values, write_rows_file

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.hostile import Hostile

    Row = dict[str, str]
    Judge = Callable[[Sequence[JudgeQuestion]], Sequence[JudgeReply]]

# A second for each answer is far more than any takes; a hang is longer.
DEADLINE_S = 300.0
# Where the indexes of copies begin; rotations of a question count from a million on.
COPIES = 500_000


class Fair(NamedTuple):
    """A dataset's own rows, with an answer to each and the verdict it must get."""

    info: DatasetInfo
    rows: Sequence[Row]
    answers: Mapping[str, str]
    verdicts: Mapping[str, float | None]


def seed_dataset(info: DatasetInfo, *, judged: bool = False) -> Fair:
    """Read a seed fixture, with its verdicts without or with a judge."""
    folder = FIXTURES / "LMUData"
    if info.modality == "video":
        folder = repository_folder(info)
    with (folder / f"{info.name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    seeds = {str(row["index"]): row for row in seed_rows(info.name)}
    asked = [row for row in rows if row.pop("image", info.modality == "video")]
    return Fair(
        info,
        asked,
        {row["index"]: seeds[row["index"]]["prediction"] for row in asked},
        {
            row["index"]: seeds[row["index"]]["judge" if judged else "exact"]
            for row in asked
        },
    )


def score_with(
    sandbox: Sandbox,
    folder: Path,
    fair: Fair,
    texts: Sequence[Hostile],
    judge: Judge | None = None,
) -> tuple[ScoredDataset, dict[str, Hostile]]:
    """Score fair answers and hostile ones; give the score, and each copy's text."""
    copies = _copies(fair.rows, len(texts))
    hostile = {row["index"]: text for row, text in zip(copies, texts, strict=True)}
    answers = {**fair.answers, **{index: it.text for index, it in hostile.items()}}
    return _score(
        sandbox, folder, fair.info, [*fair.rows, *copies], answers, judge
    ), hostile


def _score(
    sandbox: Sandbox,
    folder: Path,
    info: DatasetInfo,
    rows: Sequence[Row],
    answers: Mapping[str, str],
    judge: Judge | None = None,
) -> ScoredDataset:
    write_rows_file(folder, rows)
    prepared = PreparedDataset(
        info=info,
        folder=folder,
        fingerprint="",
        checksum="",
        modified=True,
        sample_count=len(rows),
        notes=(),
    )
    replies = [(index, [text]) for index, text in answers.items()]
    return score_in_sandbox(
        sandbox, prepared, replies, judge=judge, deadline_s=DEADLINE_S
    )


def _copies(rows: Sequence[Row], count: int) -> list[Row]:
    """Repeat rows with indexes of their own; of rotated questions the first only."""
    numbered = all(row["index"].isdecimal() for row in rows)
    first = [row for row in rows if not numbered or int(row["index"]) < 10**6]
    return [
        {**row, "index": _index(row["index"], number), **_own_image(row, number)}
        for number, row in zip(range(count), itertools.cycle(first), strict=False)
    ]


def _index(index: str, number: int) -> str:
    """Give a copy's index; HallusionBench's have parts, first a figure's number."""
    return re.sub(r"\d+", str(COPIES + number), index, count=1)


def _own_image(row: Row, number: int) -> Row:
    # MME multiplies the points of questions about one image.
    return {"image_path": f"copy{number}.jpg"} if "image_path" in row else {}


def check_hostile(
    fair: Fair, found: ScoredDataset, hostile: Mapping[str, Hostile]
) -> None:
    """No hostile text is right, and each fair answer has the verdict it always had."""
    told = values(found.verdicts)
    right = [
        (hostile[index].kind, hostile[index].text[:80], value)
        for index, value in told.items()
        if index in hostile and value and not _chooses(fair.info, hostile[index])
    ]
    assert not right, (fair.info.name, right)
    assert {index: told[index] for index in fair.verdicts} == fair.verdicts
    assert len(told) == len(fair.rows) + len(hostile)


def _chooses(info: DatasetInfo, text: Hostile) -> bool:
    """Whether a text is an answer: Video-MME takes the first such letter in any.

    So it does of what ms-vlmeval's workbook writes for a control character: `_x001B_`.
    """
    written = re.sub(
        r"[\x00-\x08\x0b-\x1f\ufffe\uffff]",
        lambda it: f"_x{ord(it[0]):04X}_",
        text.text,
    )
    return info.class_name == "VideoMME" and bool(set("ABCD") & set(written))


def replies_of(texts: Iterable[str]) -> Judge:
    """Give a judge that replies with each text in turn, over and over."""
    replies = itertools.cycle(texts)
    numbers = itertools.count(1)

    def judge(questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        return [
            JudgeReply(number=number, text=text)
            for _, number, text in zip(questions, numbers, replies, strict=False)
        ]

    return judge


class Cells(NamedTuple):
    """A dataset whose copies each have a hostile text in one of their cells."""

    fair: Fair
    copies: Sequence[Row]

    @classmethod
    def of(cls, fair: Fair, texts: Sequence[Hostile]) -> Cells:
        """Put each text into one cell, in all columns but the index in turn."""
        columns = itertools.cycle(name for name in fair.rows[0] if name != "index")
        rows = _copies(fair.rows, len(texts))
        # A table has no null bytes and no halves of characters: it is UTF-8.
        cells = [it.text.encode(errors="replace").decode() for it in texts]
        return cls(
            fair,
            [
                {**row, column: cell.replace("\0", "\\0")}
                for row, column, cell in zip(rows, columns, cells, strict=False)
            ],
        )

    def score(self, sandbox: Sandbox, folder: Path) -> list[str]:
        """Score all; give what was said of the rows that cannot be, alone or so."""
        return self._halve(sandbox, folder, self.copies)

    def _halve(
        self, sandbox: Sandbox, folder: Path, copies: Sequence[Row]
    ) -> list[str]:
        fair = self.fair
        answers = {**fair.answers, **{row["index"]: "A" for row in copies}}
        try:
            _score(sandbox, folder, fair.info, [*fair.rows, *copies], answers)
        except (VlmEvalError, SandboxFault) as error:
            if len(copies) == 1:
                return [str(error)]
            middle = len(copies) // 2
            halves = copies[:middle], copies[middle:]
            return [
                text for half in halves for text in self._halve(sandbox, folder, half)
            ]
        return []
