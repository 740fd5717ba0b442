"""Plain, frozen data that crosses the borders between the parts of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

Setting = str | int | float | bool

Kind = Literal["multiple_choice", "yes_no", "vqa", "caption", "conversation", "other"]
JudgeNeed = Literal["required", "optional", "unused"]
Scoring = Literal["published", "vlmevalkit", "corrected"]
# The scoring `vlmevalkit` is VLMEvalKit's at this commit, and made of ms-vlmeval's.
VLMEVALKIT_COMMIT = "e8e78f05f3080fe28154f2130321f17951c3be94"
VLMEVALKIT_BASE = "0.0.20"
AnswerState = Literal[
    "answered",
    "cut_off",
    "empty",
    "filtered",
    "refused",
    "aborted",
    "failed",
    "not_asked",
]
# States of samples that got no answer, and of those with none that a judge may give.
UNANSWERED: tuple[AnswerState, ...] = ("failed", "aborted", "not_asked")
WITHHELD: tuple[AnswerState, ...] = (*UNANSWERED, "filtered", "refused")
# States of answers with a text that is scored.
USABLE: tuple[AnswerState, ...] = ("answered", "cut_off")
# What ms-vlmeval's client of a server writes for an empty reply (api/base.py:273).
NO_REPLY = "Failed to obtain answer via API."
# The reason of a verdict on a sample that has no usable answer.
NO_ANSWER = "no usable answer"
VerdictState = Literal["matched", "judged", "judge_failed", "judge_unclear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A hub of dataset repositories: its address, and the cache of its own client."""

    kind: Literal["huggingface", "modelscope"]
    endpoint: str
    cache: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DataVersion:
    """A published version of a dataset's file, known by its MD5.

    `date` is when VLMEvalKit first named that, `origin` the commit, and the package
    that has it too; `change` is what differs from the version before, where known.
    """

    md5: str
    date: str
    origin: str
    change: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """What is known of a dataset before any of its data is read.

    `class_name` and `module` (dotted, below `vlmeval.dataset`) name the ms-vlmeval
    class that builds its prompts and scores it. `md5` is the published checksum of the
    file and `versions` all that are published under its address, the oldest first,
    where it has changed. `path` is a file that is used instead of a download,
    `checksum` that of its content with all it names. `rules` is the name by which
    ms-vlmeval chooses among its rules, where that is not `name`. `source` is the host
    or the hub's repository it comes from, `repository` the one that its videos or
    pictures come from, if known. `settings` go to the constructor: those that the name
    of a preset stands for, and how its videos are shown. `members` are the datasets of
    a collection. Only files in its own folders are read, if `confined`. `size_bytes`,
    `has_references`, `judge`, `homepage` and `licence` are None where not known.
    """

    name: str
    class_name: str
    module: str
    kind: Kind
    modality: Literal["image", "video", "text"] = "image"
    url: str | None = None
    md5: str | None = None
    versions: tuple[DataVersion, ...] = ()
    path: Path | None = None
    checksum: str | None = None
    rules: str = ""
    confined: bool = True
    family: str = ""
    source: str = ""
    repository: str = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    size_bytes: int | None = None
    has_references: bool | None = None
    judge: JudgeNeed | None = None
    homepage: str | None = None
    licence: str | None = None
    members: tuple[str, ...] = ()

    def is_published(self, checksum: str) -> bool:
        """Whether a file of that MD5 is a published one, as far as can be known."""
        known = {self.md5, *(each.md5 for each in self.versions)}
        return self.md5 is None or checksum in known

    def name_version(self, checksum: str) -> str:
        """Name the version that a file is of several; "" where one is known."""
        found = (each for each in self.versions if each.md5 == checksum)
        return next((f"{each.date} ({each.origin})" for each in found), "")

    @property
    def published(self) -> str:
        """Say which MD5 is published, or which are, with their dates."""
        known = [f"{each.md5} of {each.date}" for each in self.versions]
        if self.md5 not in [each.md5 for each in self.versions]:
            known.append(str(self.md5))
        if len(known) == 1:
            return f"the published one {known[0]}"
        return f"the published ones {', '.join(known[:-1])} and {known[-1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedDataset:
    """A dataset on disk, ready to be asked and scored.

    `folder` holds `samples.parquet`, `rows.parquet` (the rows without their pictures)
    and `media/`. `fingerprint` names name, file checksum and ms-vlmeval version;
    `modified` is true when the file is not a published one, and `version` which one of
    several it is, "" where one is known. `notes` say how the dataset is asked where
    there is a choice.
    """

    info: DatasetInfo
    folder: Path
    fingerprint: str
    checksum: str
    modified: bool
    sample_count: int
    version: str = ""
    notes: tuple[str, ...] = ()


class Ask(NamedTuple):
    """One time that a sample, named by its index, is asked: `repeat` counts from 0."""

    sample: str
    repeat: int = 0


class Said(NamedTuple):
    """A model's reply to one turn; `reasoning` is what it thought before."""

    text: str
    reasoning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for one sample, whatever it was.

    `cut_off` is an answer that ended at the token limit, whose text is scored like any
    other, `empty` one without text, however it ended, `filtered` one that a filter of
    the server stopped, `refused` one that the model's reply declares a refusal,
    `aborted` one that the server broke off, `failed` a request that got none,
    `not_asked` a sample of a dataset that was given up before its turn; `error` then
    says why. `reasoning` is what a model thought before its answer, which is `text`
    alone. `finish_reason` is the server's word for how it ended. Of a prompt with
    several `turns` they are those of the last turn that was asked, and `earlier` the
    replies to those before it; a turn without a usable reply is the last. With any turn
    cut off the whole is, and has its finish_reason. `latency_ms` is that of the last
    attempt, or the sum of those of each turn; attempts and tokens are those of all
    turns. `repeat` says which time the sample was asked, from 0 on. `from_cache` is
    true where an equal prompt had been answered before and nothing was sent: no
    attempts, no tokens; `asked_in` is the session that asked it, "" for what is not
    from the cache. `endpoint` is what answered (a URL, or the name of a model that runs
    here), `system_fingerprint` what it called its configuration, and `answered_at`
    when, in seconds since 1970: 0 until it is recorded. `from_store` is true where the
    session at hand did not ask it itself.
    """

    fingerprint: str
    index: str
    state: AnswerState
    repeat: int = 0
    from_cache: bool = False
    asked_in: str = ""
    text: str = ""
    reasoning: str = ""
    error: str = ""
    finish_reason: str = ""
    attempts: int = 1
    latency_ms: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    turns: int = 1
    earlier: tuple[Said, ...] = ()
    endpoint: str = ""
    system_fingerprint: str = ""
    answered_at: float = field(default=0.0, compare=False)
    from_store: bool = field(default=False, compare=False)

    @property
    def is_usable(self) -> bool:
        """Whether it has a text that is scored."""
        return self.state in USABLE

    @property
    def replies(self) -> tuple[str, ...]:
        """The reply to each turn that was asked, the last of which may be ""."""
        return (*(said.text for said in self.earlier), self.text)

    @property
    def cell(self) -> str:
        """The text as it came, or all replies as a list."""
        return self.text if self.turns == 1 else str(list(self.replies))

    def predictions(self, backend: str) -> tuple[str, ...]:
        """Return the replies as ms-vlmeval has them in its prediction files.

        Its client of a server strips each (api/gpt.py:280) and writes `NO_REPLY` for an
        empty one; what a model says that it runs itself (`backend` "local") stays as
        it is.
        """
        if backend == "local":
            return self.replies
        return tuple(reply.strip() or NO_REPLY for reply in self.replies)

    def predicted(self, backend: str) -> str:
        """Return the cell of such a file: a text, or of several turns a list."""
        said = self.predictions(backend)
        return said[0] if self.turns == 1 else str(list(said))

    @property
    def where(self) -> str:
        """Which of several turns was asked last: "turn 2 of 5"; "" where one is all."""
        number = len(self.earlier) + 1
        return "" if self.turns == 1 else f"turn {number} of {self.turns}"

    @property
    def retries(self) -> int:
        """How many requests were sent again."""
        return max(0, self.attempts - len(self.earlier) - 1)


def lose(answer: Answer, why: str) -> Answer:
    """Return what is left of an answer that cannot be kept."""
    return Answer(
        fingerprint=answer.fingerprint,
        index=answer.index,
        repeat=answer.repeat,
        state="failed",
        error=why,
        attempts=answer.attempts,
        turns=answer.turns,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeQuestion:
    """What a judge is asked: a prompt and its settings.

    `task` names what it is about, in a dataset the row's index. `max_tokens` and
    `temperature` are not sent where None. `attempt` counts how often the very same was
    asked of it before.
    """

    prompt: str
    task: str = ""
    system: str | None = None
    max_tokens: int | None = 2048
    temperature: float | None = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReply:
    """What came back from a judge; `text` is None where nothing did, as `error` says.

    `number` is that of the exchange in the store.
    """

    number: int
    text: str | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one sample was judged: `value` in [0, 1], None where it was not scored.

    `extracted` is what ms-vlmeval read out of the answer, `reason` its own note.
    `state` is "matched" without a judge, "judged", "judge_failed" (no reply) or
    "judge_unclear" (no usable one), the last two without a value; `exchanges` are
    the numbers of what was asked of the judge. Where each sample is asked several
    times `value` is the mean over `repeats`, the values of each time, and None where
    one of them is; `extracted` and `reason` are those of the first time. `corrected`
    is what corrected scoring gives where a published verdict differs from it, None
    where it does not. It `rests_on_defect` where it is the better one by a known defect
    of ms-vlmeval's scoring. `unread` is true where no rule found an option in the
    answer, which then counts as wrong; `why_lost` says why no answer to the sample can
    be right, "" if one can.
    """

    index: str
    value: float | None
    extracted: str | None = None
    reason: str = ""
    state: VerdictState = "matched"
    exchanges: tuple[int, ...] = ()
    repeats: tuple[float | None, ...] = ()
    corrected: float | None = None
    rests_on_defect: bool = False
    unread: bool = False
    why_lost: str = ""

    @property
    def right(self) -> int:
        """How many of the repeats were right."""
        return sum(value is not None and value >= 0.5 for value in self.repeats)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundScore:
    """A published score with the verdicts that rest on a known defect counted as wrong.

    There are `defects` such verdicts; the others make `value` and `metrics`.
    """

    defects: int
    value: float
    metrics: Mapping[str, float] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result of a dataset: every metric of ms-vlmeval, one of them the main one.

    `value` is `metrics[main_metric]` from 0 to `scale`, mostly 100. `samples` counts
    what was asked for, `answered` the usable answers, those that were cut off among
    them, `correct` the verdicts from 0.5 on, `undecided` those that `judge` failed to
    give. Such count as wrong: `value` is the worst case, `best` the value if all of
    them were right. `modified` repeats that the dataset's file is not the published
    one. `scorer` is the fingerprint of the code that scored, `judge` what read the
    answers that it could not match. `scoring` is the method where it differs from
    ms-vlmeval's: "vlmevalkit", or "corrected" where a defect of the published scores
    was fixed; `notes` say what else makes the numbers differ from those. Where each
    sample is asked several times `value`, `best` and `metrics` are means over the
    repeats, whose values `repeats` has in order; only what every time was answered is
    `answered`. `differing` counts the published verdicts that corrected scoring does
    not give, `sound` is what is left without those that rest on a defect, None where
    none does. `unread` counts the answers in which no rule found an option.
    `data_version` names the file where several are published.
    """

    dataset: str
    metrics: Mapping[str, float]
    main_metric: str
    value: float
    best: float
    samples: int
    answered: int
    correct: int
    undecided: int
    modified: bool
    scorer: str
    judge: str
    scale: float = 100
    scoring: Scoring = "published"
    notes: tuple[str, ...] = ()
    repeats: tuple[float, ...] = ()
    differing: int = 0
    sound: SoundScore | None = None
    unread: int = 0
    data_version: str = ""
    verdicts: tuple[Verdict, ...] = field(repr=False, default=())

    @property
    def standard_deviation(self) -> float | None:
        """The sample standard deviation over the repeats (n - 1); None without any."""
        count = len(self.repeats)
        if count < 2:
            return None
        mean = math.fsum(self.repeats) / count
        squares = math.fsum((value - mean) ** 2 for value in self.repeats)
        return math.sqrt(squares / (count - 1))

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean over the repeats; None without any."""
        deviation = self.standard_deviation
        return None if deviation is None else deviation / math.sqrt(len(self.repeats))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """What a session needs of one dataset: the indexes of its samples, in order.

    `judges` are the names of those that read its answers, none for exact matching.
    `checksum` is the MD5 of its file, `version` names it as `PreparedDataset` does.
    `unscored` says why there is no score whatever is answered, "" for most.
    """

    dataset: str
    fingerprint: str
    modified: bool
    indexes: tuple[str, ...]
    judges: tuple[str, ...] = ()
    unscored: str = ""
    checksum: str = ""
    version: str = ""

    @property
    def judge(self) -> str:
        """What names the score that counts: the judge, or the majority of several."""
        if len(self.judges) > 1:
            return f"majority of {', '.join(self.judges)}"
        return self.judges[0] if self.judges else "exact_matching"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a session needs of a run.

    `scorer` names the code that will score; each sample is asked `repeats` times, or
    not at all unless the session `asks`.
    """

    run_id: str
    scorer: str
    entries: tuple[PlanEntry, ...]
    repeats: int = 1
    asks: bool = True
