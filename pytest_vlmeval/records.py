"""Plain, frozen data that crosses the borders between the rooms of the package."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPart:
    """One piece of a prompt: a text, or an image or video named by its content.

    `media` is the file's name below the prepared dataset's `media/` folder,
    `<sha256>.<suffix>`; the bytes are the dataset's own. `saved_as` is the suffix of
    the file that ms-vlmeval writes the image of a table's cell to, before it sends it;
    "" for an image that is a file already.
    """

    kind: Literal["text", "image", "video"]
    text: str = ""
    media: str = ""
    media_type: str = ""
    saved_as: str = ""


# What is said to a model at once.
Turn = tuple[PromptPart, ...]


def parts_of(prompt: Iterable[Turn]) -> tuple[PromptPart, ...]:
    """Return the parts of all turns of a prompt, in order."""
    return tuple(part for turn in prompt for part in turn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question of a dataset, as ms-vlmeval would ask it.

    `index` is the dataset's own, as text. `prompt` has one turn, or several that are
    asked one after the other, each with the replies to those before. `group` joins
    samples that are judged together. `error` says why the row cannot be asked (an
    unreadable image). `row` has the cells of the table's row by column, without its
    images, where a `score` of the user's own reads the sample; else it is empty.
    """

    dataset: str
    index: str
    prompt: tuple[Turn, ...]
    reference: str | None = None
    category: str | None = None
    group: str | None = None
    error: str | None = None
    row: Mapping[str, str] = field(default_factory=dict)


def read_prompt(text: str) -> tuple[Turn, ...]:
    """Read a prompt from the JSON it is kept in: a list of parts for each turn."""
    return tuple(tuple(_part(*part) for part in turn) for turn in json.loads(text))


def _part(
    kind: str, content: str, media_type: str = "", saved_as: str = ""
) -> PromptPart:
    if kind == "image":
        return PromptPart(
            kind="image", media=content, media_type=media_type, saved_as=saved_as
        )
    if kind == "video":
        return PromptPart(kind="video", media=content, media_type=media_type)
    return PromptPart(kind="text", text=content)


Setting = str | int | float | bool
# The names of options, in order; as keys, as they are looked up for each cell.
LETTERS = dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "")
# What a column of a user's own table may be for, with the further names by which it is
# known, in lower case.
COLUMNS: dict[str, tuple[str, ...]] = {
    "index": ("id", "idx"),
    "messages": ("conversations",),
    "question": ("query", "prompt", "problem", "instruction"),
    "answer": (
        "answers",
        "label",
        "target",
        "solution",
        "gt_answer",
        "ground_truth",
        "response",
    ),
    "options": ("choices",),
    "image": ("images", "img", "picture", "photo"),
    "image_path": ("file_name", "image_file", "img_path"),
    "category": (),
    "split": (),
    "hint": (),
    "g_index": (),
}
# Answers that are numbers of options, and the number of the first option.
COUNTED = {"answer_from_0": 0, "answer_from_1": 1}

Kind = Literal["multiple_choice", "yes_no", "vqa", "caption", "conversation", "other"]
JudgeNeed = Literal["required", "optional", "unused"]
Scoring = Literal["published", "vlmevalkit", "corrected"]
# What scored a dataset: ms-vlmeval in one of its ways, or a function of the user's own.
ScoringMethod = Scoring | Literal["own"]
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
# States of verdicts without a value, for which the same answer may get one later.
UNDECIDED: tuple[VerdictState, ...] = ("judge_failed", "judge_unclear")


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
    images come from, if known. `settings` go to the constructor: those that the name
    of a preset stands for, and how its videos are shown. `members` are the datasets of
    a collection. Only files in its own folders are read, if `confined`. A table of the
    user's own may have further files, `shards`, and `columns` that its names do not
    tell; its images may be anywhere in `folder`, if that is more than the table's, and
    `revision` is the repository of a hub that it comes from, with its commit.
    `size_bytes`, `has_references`, `judge`, `homepage` and `licence` are None where not
    known.
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
    shards: tuple[Path, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    revision: str = ""
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
        """Return whether a file of that MD5 is a published one, as far as is known."""
        known = {self.md5, *(each.md5 for each in self.versions)}
        return self.md5 is None or checksum in known

    def name_version(self, checksum: str) -> str:
        """Name the version that a file is of several; "" where one is known."""
        found = (each for each in self.versions if each.md5 == checksum)
        return next((f"{each.date} ({each.origin})" for each in found), "")

    @property
    def published(self) -> str:
        """Describe which MD5 is published, or which are, with their dates."""
        known = [f"{each.md5} of {each.date}" for each in self.versions]
        if self.md5 not in [each.md5 for each in self.versions]:
            known.append(str(self.md5))
        if len(known) == 1:
            return f"the published one {known[0]}"
        return f"the published ones {', '.join(known[:-1])} and {known[-1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedDataset:
    """A dataset on disk, ready to be asked and scored.

    `folder` holds `samples.parquet`, `rows.parquet` (the rows without their images)
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

    def predictions(self, *, ours: bool) -> tuple[str, ...]:
        """Return the replies as ms-vlmeval has them in its prediction files.

        Its client of a server strips each (api/gpt.py:280) and writes `NO_REPLY` for an
        empty one; what a model says that it runs itself (`ours`) stays as it is.
        """
        if ours:
            return self.replies
        return tuple(reply.strip() or NO_REPLY for reply in self.replies)

    def predicted(self, *, ours: bool) -> str:
        """Return the cell of such a file: a text, or of several turns a list."""
        said = self.predictions(ours=ours)
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


# In the reason of a verdict that is none, as its dataset has a score but no verdicts.
SCORED_TOGETHER = "scored all together"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeQuestion:
    """What a judge is asked: a prompt and its settings.

    `unit` names what it is about, in a dataset the row's index. `max_tokens` and
    `temperature` are not sent where None. `attempt` counts how often the very same was
    asked of it before. `images` are files named by their content; they stand before
    the prompt if they come `first`, else behind it.
    """

    prompt: str
    unit: str = ""
    system: str | None = None
    max_tokens: int | None = 2048
    temperature: float | None = 0
    attempt: int = 0
    images: tuple[Path, ...] = ()
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReply:
    """What came back from a judge; `text` is None where nothing did, as `error` says.

    `number` is that of the exchange in the store.
    """

    number: int
    text: str | None
    error: str = ""


# From this value on a verdict counts as right.
RIGHT_FROM = 0.5


def is_right(value: float | None) -> bool:
    """Return whether the value of a verdict counts as right."""
    return value is not None and value >= RIGHT_FROM


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
    def is_part_of_whole(self) -> bool:
        """Whether the sample has no verdict because all are scored together."""
        return self.value is None and SCORED_TOGETHER in self.reason

    @property
    def right(self) -> int:
        """How many of the repeats were right."""
        return sum(map(is_right, self.repeats))


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
    ms-vlmeval's: "vlmevalkit", "corrected" where a defect of the published scores
    was fixed, or "own" for a function of the user's own; `notes` say what else makes
    the numbers differ from those. Where each sample is asked several times `value`,
    `best` and `metrics` are means over the repeats, whose values `repeats` has in
    order; only what every time was answered is `answered`. `differing` counts the
    published verdicts that corrected scoring does not give, `sound` is what is left
    without those that rest on a defect, None where none does. `unread` counts the
    answers in which no rule found an option. `data_version` names the file where
    several are published.
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
    scoring: ScoringMethod = "published"
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
    `unscored` says why there is no score whatever is answered, "" for most. `scorer` is
    the label of the user's own scoring (`TestMine.score` and a digest), "" where
    ms-vlmeval scores.
    """

    dataset: str
    fingerprint: str
    modified: bool
    indexes: tuple[str, ...]
    judges: tuple[str, ...] = ()
    unscored: str = ""
    checksum: str = ""
    version: str = ""
    scorer: str = ""

    @property
    def judge(self) -> str:
        """What names the score that counts: the judge, or the majority of several.

        Without a judge, the function of the user's own, or `exact_matching`.
        """
        if len(self.judges) > 1:
            return f"majority of {', '.join(self.judges)}"
        if self.judges:
            return self.judges[0]
        return self.scorer.partition(" ")[0] or "exact_matching"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a session was started: at which commit, by which command, with what.

    `revision` is "" outside of git, with "-dirty" if the folder is changed. `command`
    holds no key, and is "" where Python code started the session. `versions` maps the
    names of Python and of packages to theirs. `fails` says which wrong answers fail
    their tests: none, those that were right in the baseline, or all.
    """

    revision: str = ""
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    fails: Literal["none", "regressed", "wrong"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """A request that got no answer, whether or not a later one did.

    `asked` is the name of the model or the judge, `endpoint` its base URL. `kind` is
    the HTTP status, or another of `models.client.ErrorKind`. `at` is in seconds since
    1970.
    """

    asked: str
    endpoint: str
    fingerprint: str
    index: str
    kind: str
    message: str
    latency_ms: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What was asked of one model or judge for one dataset, or for all of them.

    `dataset` is "" for all. `requests` counts every attempt, `retries` those beyond
    the first of each question, `answers` the questions that were answered in any way,
    `failed` those that were not. Latencies are those of the last attempts, in ms, by
    the nearest rank; None where nothing was answered. `errors` counts failed attempts
    by kind.
    """

    dataset: str
    asked: str
    requests: int
    retries: int
    answers: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """How many answers a session asked itself, and where it has the others from.

    `equal` are those of its own that it asked for an equal prompt, once for all.
    `oldest` and `newest` are when those were given, to the day, in seconds since 1970,
    and `endpoints` what gave them; all of them empty where `stored` is 0.
    """

    asked: int = 0
    equal: int = 0
    stored: int = 0
    oldest: float = 0.0
    newest: float = 0.0
    endpoints: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """Describe from when the stored ones are and what gave them, "" without any."""
        times = (self.oldest, self.newest) if self.stored else ()
        days = [f"{datetime.fromtimestamp(at, UTC):%d %b %Y}" for at in times if at]
        parts = [" to ".join(dict.fromkeys(days)), ", ".join(self.endpoints)]
        return ", ".join(filter(None, parts))

    def __add__(self, other: Origins) -> Origins:
        """Return those of both together."""
        both = [each for each in (self, other) if each.stored]
        return Origins(
            asked=self.asked + other.asked,
            equal=self.equal + other.equal,
            stored=self.stored + other.stored,
            oldest=min((each.oldest for each in both), default=0.0),
            newest=max((each.newest for each in both), default=0.0),
            endpoints=tuple(sorted({*self.endpoints, *other.endpoints})),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotCheck:
    """What asking some stored answers again has shown.

    `state` is "same", "few" (too few to tell: their new answers count), "weights"
    (nothing was asked: the same checksums) or "unchecked", for the reason `why`; where
    they have changed nothing is used, and there is no such record. Of the `asked`
    samples `same` were answered as before, `changed` twice in another way, `unsteady`
    each time differently, and `failed` not at all; `requests` counts every attempt.
    `few` are those among them that are all of their source, and too few to tell.
    """

    state: Literal["same", "few", "weights", "unchecked"]
    why: str = ""
    asked: int = 0
    same: int = 0
    changed: int = 0
    unsteady: int = 0
    failed: int = 0
    few: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccount:
    """The account of a run: all its sessions together.

    `model` is the total, `datasets` has one entry for each dataset of the plan;
    `judges` and `judge_datasets` are the same for each judge that was asked, with
    what the run's own questions cost: those that were stored before cost nothing.
    `now` and `judges_now` are what the session at hand has asked itself, its spot check
    included, `origins` says which of its answers are from the store, and `spot_check`
    whether those were found to be the model's.
    """

    model: Account
    datasets: tuple[Account, ...]
    judges: tuple[Account, ...] = ()
    judge_datasets: tuple[Account, ...] = ()
    now: Account | None = None
    judges_now: tuple[Account, ...] = ()
    origins: Origins | None = None
    spot_check: SpotCheck | None = None


# An early stop fails nothing: it says why a score is of fewer samples.
Gate = Literal["completeness", "threshold", "baseline", "early stop"]
GateOutcome = Literal["passed", "failed", "inconclusive"]
# What becomes of an inconclusive gate: of `rule` what the rule says.
Inconclusive = Literal["pass", "fail", "rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval of a gate's value, in the value's unit.

    `level` is that of the interval, 0.9 for the two bounds of which each holds with
    0.95; `method` names it in words.
    """

    low: float
    high: float
    level: float
    method: str


def wilson(share: float, size: float, level: float) -> tuple[float, float]:
    """Return Wilson's bounds for a share of `size` samples, which may be no integer.

    `level` is that of each bound. E. Wilson, Probable Inference, 1927, doi
    10.1080/01621459.1927.10502953.
    """
    from statistics import NormalDist

    z = NormalDist().inv_cdf(level)
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    spread = share * (1 - share) / size + z**2 / (4 * size**2)
    half = z / (1 + z**2 / size) * math.sqrt(spread)
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryShare:
    """How many of a category's samples are right."""

    category: str
    correct: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlippedSample:
    """A sample that is right and was not before, or was and `is_lost`.

    `before` and `now` are its verdicts in words, as a baseline's file has them.
    """

    index: str
    before: str
    now: str
    is_lost: bool


# The rules of gates that hold a score against nothing: there is no threshold or no
# baseline of it, the model has no baseline of anything yet, or the score itself has
# just become the baseline.
NO_RULE = "none"
FIRST = "first"
WRITTEN = "written"
# What is said of a run, or of a score, without a threshold and without a baseline.
NO_GATE = "no gate was set"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What one gate says of one metric of a dataset.

    `metric` is ms-vlmeval's name, "" where the gate is about no metric; `rule` is how
    the gate decides ("point", "confident-below", "confident-above", or what a gate of
    its own calls it). `value`, `expected` (the threshold or the baseline's value),
    `margin` and `interval` are in the metric's unit. `samples` counts what the value
    is made of, `clusters` the independent units among them. `p_value` is one-sided
    and of this gate alone; `adjusted_p_value` also counts the other gates of the
    run. `lost` were right in the baseline and are wrong now, `gained` the other way;
    `flips` are the samples of both, the lost ones first. `worst` are the categories
    with the smallest share of right answers.
    `needed_samples` would tell a difference of this size. `file` is the baseline that
    was compared with. `message` is all that in one readable block. `fails` says whether
    the test fails: an inconclusive gate may do either.
    """

    dataset: str
    gate: Gate
    outcome: GateOutcome
    message: str
    metric: str = ""
    rule: str = ""
    value: float | None = None
    interval: Interval | None = None
    samples: int = 0
    clusters: int = 0
    expected: float | None = None
    margin: float = 0.0
    p_value: float | None = None
    adjusted_p_value: float | None = None
    lost: int | None = None
    gained: int | None = None
    flips: tuple[FlippedSample, ...] = ()
    worst: tuple[CategoryShare, ...] = ()
    needed_samples: int | None = None
    file: str = ""
    fails: bool = False

    @property
    def headline(self) -> str:
        """The message's first line, without the colon before the lines of the rest."""
        return self.message.partition("\n")[0].removesuffix(":")

    @property
    def is_note(self) -> bool:
        """Whether it only says why a score is of fewer samples, and is no gate."""
        return self.gate == "early stop"

    @property
    def is_set(self) -> bool:
        """Whether the score was held against anything: a threshold, or a baseline."""
        return self.gate in ("threshold", "baseline") and not self.is_empty

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to hold the score against."""
        return self.rule in (NO_RULE, FIRST, WRITTEN)

    @property
    def finding(self) -> str:
        """The outcome in reports, "not set" if there was nothing to hold against.

        "written" if the score has become the baseline.
        """
        if not self.is_empty or self.outcome != "passed":
            return self.outcome
        return "written" if self.rule == WRITTEN else "not set"

    @property
    def counts(self) -> bool:
        """Whether it is counted: not what passes as nothing was to be held against."""
        return not self.is_note and not (self.is_empty and self.outcome == "passed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a gate of all samples would find, known from the first ones.

    `claim` says it in a clause, with the chance at most to be wrong.
    """

    gate: Gate
    outcome: Literal["passed", "failed"]
    claim: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """That a dataset's gates were decided after `asked` of `total` samples."""

    dataset: str
    asked: int
    total: int
    decisions: tuple[Decision, ...]

    @property
    def reason(self) -> str:
        """Explain that it stopped, after how many samples, why and how surely."""
        claims = "; ".join(each.claim for each in self.decisions)
        return (
            f"{self.dataset} stopped after {self.asked:,} of {self.total:,} samples: "
            f"{claims} (--vlm-stop-early)"
        )

    def outcome(self, gate: Gate) -> Literal["passed", "failed"] | None:
        """Return what was decided of a gate; None if nothing was asked of it."""
        found = {each.gate: each.outcome for each in self.decisions}
        return found.get(gate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """That all samples of a dataset are asked, and why."""

    dataset: str
    why: str

    @property
    def reason(self) -> str:
        """Say so in a sentence."""
        return f"--vlm-stop-early does not apply to {self.dataset}: {self.why}"


def is_failure(
    outcome: GateOutcome, inconclusive: Inconclusive, *, strict: bool = False
) -> bool:
    """Return whether an outcome fails its test.

    If nothing else is said, an inconclusive gate fails only under a `strict` rule, one
    that wants proof of a good value.
    """
    if outcome != "inconclusive":
        return outcome == "failed"
    return strict if inconclusive == "rule" else inconclusive == "fail"


def explain_failures(results: Iterable[GateResult]) -> str | None:
    """Return the messages of the gates that fail their test; None if none does."""
    messages = [result.message for result in results if result.fails]
    return "\n\n".join(messages) if messages else None


def from_record(record: Mapping[str, Any]) -> GateResult:
    """Make a result of its members as plain data."""
    interval = record["interval"]
    return GateResult(
        **{
            **record,
            "interval": None if interval is None else Interval(**interval),
            # Those of an earlier version have none.
            "flips": tuple(FlippedSample(**each) for each in record.get("flips", ())),
            "worst": tuple(CategoryShare(**each) for each in record["worst"]),
        }
    )


def describe_interval(interval: Interval) -> str:
    """Write an interval as reports show it: `[60.12, 67.90], 95 % Wilson`."""
    level = f"{100 * interval.level:g} %"
    return f"[{interval.low:.2f}, {interval.high:.2f}], {level} {interval.method}"


def properties_of(result: GateResult, *, every: bool) -> list[tuple[str, object]]:
    """Return what a JUnit report says of a gate, each name once per gate and metric.

    That is `every` figure, or what was found, of what value and why.
    """
    name = f"{result.gate} gate"
    if result.metric:
        name = f"{name} of {result.metric}"
    found: list[tuple[str, object | None]] = [
        ("outcome", result.finding),
        ("value", result.value),
        ("interval", result.interval and describe_interval(result.interval)),
        ("expected", result.expected),
        ("lost", result.lost),
        ("gained", result.gained),
        ("reason", result.message),
    ]
    further: list[tuple[str, object | None]] = [
        ("samples", result.samples or None),
        ("clusters", result.clusters or None),
        ("margin", result.margin or None),
        ("rule", result.rule or None),
        ("p-value", result.p_value),
        ("adjusted p-value", result.adjusted_p_value),
        ("needed samples", result.needed_samples),
    ]
    return [
        (f"{name}: {key}", value)
        for key, value in (*found, *(further if every else ()))
        if value is not None
    ]
