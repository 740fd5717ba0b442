"""What the project asks of the sandbox, with types: prepare, score, submit."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.records import (
    JudgeQuestion,
    SoundScore,
    Verdict,
    parts_of,
    read_prompt,
)
from pytest_vlmeval.sandbox.rows import FILE, read_samples_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vlmeval.records import (
        DatasetInfo,
        JudgeReply,
        PreparedDataset,
        Scoring,
    )
    from pytest_vlmeval.sandbox.process import Progress, Sandbox
    from pytest_vlmeval.sandbox.shelf import Shelf

    AskJudge = Callable[[Sequence[JudgeQuestion]], Sequence[JudgeReply]]

DESCRIBE_S = 60.0
LIST_S = 300.0
PREPARE_BASE_S = 300.0
# Ten times what preparing was measured to take; a slow disk is not a hang.
PREPARE_S_PER_MB = 2.0
SCORE_BASE_S = 600.0
SCORE_S_PER_ANSWER = 0.1
# Unpacking and cutting videos takes hours where there are hundreds of GB.
VIDEO_BASE_S = 1_800.0
VIDEO_S_PER_MB = 0.5


class SandboxVersions(NamedTuple):
    """The versions that decide a score."""

    ms_vlmeval: str
    python: str
    pandas: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredDataset:
    """What ms-vlmeval made of a dataset's answers.

    `metrics` are its own numbers on its own scales, `value` is `metrics[main_metric]`
    from 0 to `scale`, with what the judge did not decide counted as wrong, in `best`
    as right. One verdict per answer, in the dataset's order. `scoring` is
    "corrected" where a defect of ms-vlmeval's published scores was fixed; `notes` say
    what else makes the numbers differ from those. `sound` is what is left of a
    published score without the verdicts that rest on a known defect, None where none
    does.
    """

    metrics: Mapping[str, float]
    main_metric: str
    value: float
    best: float
    verdicts: tuple[Verdict, ...] = field(repr=False)
    scale: float = 100
    scoring: Scoring = "published"
    notes: tuple[str, ...] = ()
    sound: SoundScore | None = None


def describe_sandbox(sandbox: Sandbox) -> SandboxVersions:
    """Return the versions inside; raises VlmEvalError if ms-vlmeval is not there."""
    found = sandbox.call(
        "describe", {}, task="Starting the sandbox", deadline_s=DESCRIBE_S
    )
    return SandboxVersions(**found)


def list_in_sandbox(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Return what `listing` says of all datasets that ms-vlmeval names, in its order.

    Afterwards the process is good for nothing else: it takes packages that are absent
    for installed ones.
    """
    found: list[dict[str, Any]] = sandbox.call(
        "list", {}, task="Listing ms-vlmeval's datasets", deadline_s=LIST_S
    )["datasets"]
    return found


def prepare_in_sandbox(
    sandbox: Sandbox,
    info: DatasetInfo,
    table: Path | None,
    folder: Path,
    on_progress: Progress | None = None,
    shelf: Shelf | None = None,
    *,
    video_url: bool = False,
) -> int:
    """Write `rows.parquet`, `samples.parquet` and `media/` into `folder`.

    Returns how many samples there are. Without a table, and for videos, the dataset's
    class makes the rows from what is on the shelf. With `video_url` prompts have the
    files of videos, not their frames.
    """
    params: dict[str, Any] = {
        "info": _plain(info),
        "shelf": asdict(shelf) if shelf else None,
        "folder": str(folder.absolute()),
    }
    if info.modality == "video":
        assert shelf is not None
        deadline_s = _deadline_s(shelf)
        params["video_url"] = video_url
    else:
        tables = [table, *info.shards] if table else []
        size = sum(path.stat().st_size for path in tables)
        size_mb = (size + (_size_of(shelf) if shelf else 0)) / 2**20
        deadline_s = PREPARE_BASE_S + PREPARE_S_PER_MB * size_mb
        params["tsv"] = str(table.absolute()) if table else None
    found = sandbox.call(
        "prepare_videos" if info.modality == "video" else "prepare",
        params,
        task=f"Preparing {info.name}",
        deadline_s=deadline_s,
        on_progress=on_progress,
    )
    return int(found["samples"])


def digest_in_sandbox(sandbox: Sandbox, files: Sequence[Path]) -> list[tuple[str, str]]:
    """Return a digest of each file's content, or "" and what is wrong with it."""
    size_mb = sum(file.stat().st_size for file in files) / 2**20
    found = sandbox.call(
        "digest",
        {"files": [str(file.absolute()) for file in files]},
        task=f"Reading {len(files)} images",
        deadline_s=PREPARE_BASE_S + PREPARE_S_PER_MB * size_mb,
    )
    return [(digest, reason) for digest, reason in found["digests"]]


def locate_in_sandbox(
    sandbox: Sandbox, info: DatasetInfo, shelf: Shelf
) -> dict[str, Any]:
    """Find the `tables` of a dataset, or the repository or file it `needs` first."""
    return sandbox.call(
        "locate",
        {"info": _plain(info), "shelf": asdict(shelf)},
        task=f"Finding the files of {info.name}",
        deadline_s=_deadline_s(shelf),
    )


def _deadline_s(shelf: Shelf) -> float:
    return VIDEO_BASE_S + VIDEO_S_PER_MB * _size_of(shelf) / 2**20


def _size_of(shelf: Shelf) -> int:
    files = [*map(Path, shelf.files.values())]
    for snapshot in shelf.snapshots:
        files += Path(snapshot["folder"]).rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


class _Shown:
    """The images of a prepared dataset's samples, for a judge that sees them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images: dict[str, tuple[Path, ...]] | None = None

    def add_to(self, question: dict[str, Any]) -> JudgeQuestion:
        """Give what the sandbox asks; "before" or "after" it are the unit's images."""
        shown = question.pop("shown", "")
        if not shown:
            return JudgeQuestion(**question)
        if self._images is None:
            self._images = {
                index: tuple(
                    self._folder / "media" / part.media
                    for part in parts_of(read_prompt(prompt))
                    if part.kind == "image"
                )
                for index, prompt in read_samples_rows(
                    self._folder, ("index", "prompt")
                )
            }
        index = question["unit"]
        if index not in self._images:  # something of a row that is judged by itself
            index = index.rpartition("/")[0]
        images = self._images[index]
        return JudgeQuestion(**question, images=images, first=shown == "before")


def score_in_sandbox(
    sandbox: Sandbox,
    prepared: PreparedDataset,
    answers: Sequence[tuple[str, Sequence[str] | None]],
    *,
    empty: Collection[str] = (),
    judge: AskJudge | None = None,
    scoring: Scoring = "published",
    deadline_s: float | None = None,
    on_progress: Progress | None = None,
) -> ScoredDataset:
    """Score answers, each an index and the replies, None if none are usable.

    There is a reply for each turn of the prompt; those at the `empty` indexes stand for
    no text, and count as wrong where published scoring is held against corrected.
    ms-vlmeval's exact matching decides, and what it leaves open `judge`, where there
    is one. Samples that are not among the answers do not count. The default deadline
    grows with their number. `scoring` decides where ms-vlmeval's published scores
    have a defect that is known. Raises NeedsJudgeError, VlmEvalError, SandboxFault.
    """
    limit_s = SCORE_BASE_S + SCORE_S_PER_ANSWER * len(answers)
    shown = _Shown(prepared.folder)
    found = sandbox.call(
        "score",
        {
            "info": _plain(prepared.info),
            "rows": str((prepared.folder / FILE).absolute()),
            "answers": answers,
            "empty": sorted(empty),
            "judged": judge is not None,
            "scoring": scoring,
        },
        task=f"Scoring {prepared.info.name}",
        deadline_s=limit_s if deadline_s is None else deadline_s,
        longer="--vlm-score-timeout",
        on_progress=on_progress,
        on_ask=judge
        and (
            lambda asked: [
                asdict(reply)
                for reply in judge([shown.add_to(question) for question in asked])
            ]
        ),
    )
    columns: dict[str, list[Any]] = found["verdicts"]
    rows = (
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    )
    # Texts are kept once that are known by many, or the same for thousands.
    verdicts = tuple(
        Verdict(
            **row
            | {
                "index": sys.intern(row["index"]),
                "reason": sys.intern(row["reason"]),
                "exchanges": tuple(row["exchanges"]),
            }
        )
        for row in rows
    )
    defects = sum(verdict.rests_on_defect for verdict in verdicts)
    sound = found["sound"]
    return ScoredDataset(
        **{
            **found,
            "verdicts": verdicts,
            "notes": (*prepared.notes, *found["notes"]),
            "sound": sound and SoundScore(defects=defects, **sound),
        }
    )


class Submission(NamedTuple):
    """A file for a dataset's official server, and what its format is called."""

    file: Path
    format: str


def submit_in_sandbox(
    sandbox: Sandbox,
    prepared: PreparedDataset,
    answers: Sequence[tuple[str, str]],
    folder: Path,
) -> Submission:
    """Write answers, each an index and a text, as the dataset's server takes them."""
    found = sandbox.call(
        "submit",
        {
            "info": _plain(prepared.info),
            "rows": str((prepared.folder / FILE).absolute()),
            "answers": answers,
            "folder": str(folder.absolute()),
        },
        task=f"Writing the submission of {prepared.info.name}",
    )
    return Submission(folder / found["file"], found["format"])


def _plain(info: DatasetInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "class_name": info.class_name,
        "module": info.module,
        "modality": info.modality,
        "rules": info.rules or info.name,
        "confined": info.confined,
        "url": info.url or "",
        "settings": dict(info.settings),
        "shards": [str(path.absolute()) for path in info.shards],
        "columns": dict(info.columns),
        "folder": str(info.folder.absolute()) if info.folder else "",
    }
