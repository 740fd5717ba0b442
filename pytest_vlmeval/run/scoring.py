"""Answers in, verdicts and metrics out: each dataset of a run is scored once."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError, log_error
from pytest_vlmeval.models.open import backend_of
from pytest_vlmeval.records import (
    NO_ANSWER,
    UNDECIDED,
    Plan,
    PlanEntry,
    Score,
    SoundScore,
    Verdict,
    is_right,
)
from pytest_vlmeval.run.judge import ask_majority, choose_by_majority, unite
from pytest_vlmeval.run.own_scorer import OwnScorer
from pytest_vlmeval.sandbox.calls import Submission, score_in_sandbox, submit_in_sandbox
from pytest_vlmeval.sandbox.environment import HeldFolder
from pytest_vlmeval.sandbox.process import SandboxFault

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.records import Answer, JudgeReply, Scoring
    from pytest_vlmeval.run.judge import Judge
    from pytest_vlmeval.run.own_scoring import OwnScoring
    from pytest_vlmeval.run.queue import Board
    from pytest_vlmeval.run.store.asking import StoredAnswer
    from pytest_vlmeval.settings import Settings


def average(scores: Sequence[Score]) -> Score:
    """Return the mean of the scores of each repeat, with their values; one as it is.

    The scores are of the same samples. A sample counts as answered if it was every
    time, as undecided if it was so any time, and as correct by its mean verdict.
    """
    first = scores[0]
    if len(scores) == 1:
        return first
    by_index = [{each.index: each for each in score.verdicts} for score in scores]
    verdicts = tuple(
        _average_verdict([each[verdict.index] for each in by_index])
        for verdict in first.verdicts
    )
    unanswered = {
        verdict.index
        for score in scores
        for verdict in score.verdicts
        if verdict.reason == NO_ANSWER
    }
    return replace(
        first,
        value=_mean([score.value for score in scores]),
        best=_mean([score.best for score in scores]),
        metrics=_average_metrics([score.metrics for score in scores]),
        repeats=tuple(score.value for score in scores),
        answered=first.samples - len(unanswered),
        correct=sum(is_right(each.value) for each in verdicts),
        undecided=sum(
            each.state != "matched" and each.value is None for each in verdicts
        ),
        unread=sum(each.unread for each in verdicts),
        notes=tuple(dict.fromkeys(note for each in scores for note in each.notes)),
        differing=sum(each.corrected is not None for each in verdicts),
        sound=_average_sound(scores, verdicts),
        verdicts=verdicts,
    )


def _average_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric that every repeat has."""
    return {
        name: _mean([each[name] for each in metrics])
        for name in metrics[0]
        if all(name in each for each in metrics)
    }


def _average_sound(
    scores: Sequence[Score], verdicts: Sequence[Verdict]
) -> SoundScore | None:
    """Return what is left on average without defects; of most repeats it is all."""
    sound = [each.sound for each in scores]
    if not any(sound):
        return None
    pairs = list(zip(scores, sound, strict=True))
    return SoundScore(
        defects=sum(verdict.rests_on_defect for verdict in verdicts),
        value=_mean([score.value if it is None else it.value for score, it in pairs]),
        metrics=_average_metrics(
            [score.metrics if it is None else it.metrics for score, it in pairs]
        ),
    )


def _average_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    values = tuple(each.value for each in verdicts)
    known = [value for value in values if value is not None]
    exchanges = tuple(number for each in verdicts for number in each.exchanges)
    unread = any(each.unread for each in verdicts)
    if len(known) < len(values):
        # The first that has none says why.
        missing = next(each for each in verdicts if each.value is None)
        return replace(missing, exchanges=exchanges, repeats=values, unread=unread)
    corrected = None
    if any(each.corrected is not None for each in verdicts):
        corrected = _mean(
            [
                value if each.corrected is None else each.corrected
                for each, value in zip(verdicts, known, strict=True)
            ]
        )
    return replace(
        verdicts[0],
        value=_mean(known),
        exchanges=exchanges,
        repeats=values,
        corrected=corrected,
        rests_on_defect=any(each.rests_on_defect for each in verdicts),
        unread=unread,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


if TYPE_CHECKING:
    Stored = Mapping[str, StoredAnswer | None]
    AskJudge = Callable[..., list[JudgeReply]]


def find_score(
    board: Board, entry: PlanEntry, judge: str = "", *, brief: bool = False
) -> Score | VlmEvalError | None:
    """Return the score of a dataset, why there is none, or None if it was not tried.

    It is that of the answers that `board` knows. `judge` names one of several, whose
    majority it is otherwise. A `brief` score may come without its verdicts.
    """
    repeats = range(board.plan.repeats)
    scores = []
    for repeat in repeats:
        stored = {
            index: board.get(entry.fingerprint, index, repeat)
            for index in entry.indexes
        }
        score_id = name_score(board.plan, entry, stored, judge or entry.judge)
        # Of several repeats the verdicts make the score.
        found = board.store.load_score(score_id, brief=brief and len(repeats) == 1)
        if not isinstance(found, Score):
            return found
        scores.append(found)
    return average(scores)


def find_scores_by_judge(board: Board, entry: PlanEntry) -> tuple[Score, ...]:
    """Return the scores of each judge where there are several."""
    if len(entry.judges) < 2:
        return ()
    found = [find_score(board, entry, name) for name in entry.judges]
    return tuple(score for score in found if isinstance(score, Score))


def name_score(plan: Plan, entry: PlanEntry, stored: Stored, judge: str) -> str:
    """Name a score by all it is made of: which answers, scored by what."""
    scorer = entry.scorer or plan.scorer
    parts = [plan.run_id, entry.fingerprint, scorer, judge]
    digest = hashlib.sha256(json.dumps(parts).encode())
    for index, each in stored.items():
        digest.update(json.dumps([index, each.seq if each else None]).encode())
    return digest.hexdigest()[:32]


# Another process's scoring is looked at this often.
POLL_S = 0.1
# How often to look whether that process is gone.
DEAD_S = 2.0


class DatasetScorer(Protocol):
    """Who makes verdicts and a score of a dataset's answers."""

    def score(
        self,
        entry: PlanEntry,
        stored: Stored,
        usable: Collection[str],
        name: str,
        ask: AskJudge | None,
    ) -> Score:
        """Score answers, those with the indexes `usable` among them and others.

        `ask` asks the judge that is called `name`, None where there is none. Raises
        VlmEvalError where there can be no score, SandboxFault.
        """


class Scorer:
    """Scores what a session selected of each dataset, or reads the stored score.

    `own` has the scoring of the datasets that a function of the user's own scores.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        board: Board,
        judges: Mapping[str, Judge],
        own: Mapping[str, OwnScoring],
    ) -> None:
        self._settings = settings
        self._board = board
        self._plan = board.plan
        self._store = board.store
        self._judges = judges
        self._published = PublishedScorer(settings, library, board.plan.scorer)
        self._own = {
            name: OwnScorer(settings, library, each) for name, each in own.items()
        }
        self._scores: dict[str, Score | VlmEvalError] = {}
        self._verdicts: dict[str, Mapping[str, Verdict | VlmEvalError]] = {}
        self._lock = threading.Lock()

    def score(self, entry: PlanEntry) -> Score:
        """Wait for all answers, then score; `VlmEvalError` says why it cannot be."""
        with self._lock:
            if entry.dataset not in self._scores:
                try:
                    self._scores[entry.dataset] = self._score(entry)
                except VlmEvalError as error:
                    self._scores[entry.dataset] = error
                except Exception as error:
                    line = log_error(self._settings, error, "Scoring", entry.dataset)
                    self._scores[entry.dataset] = VlmEvalError(line)
            found = self._scores[entry.dataset]
        if isinstance(found, VlmEvalError):
            raise found
        return found

    def look(self, entry: PlanEntry) -> Score:
        """Return the score of a part of a dataset, which may not be the last word."""
        with self._lock:
            return self._score(entry)

    def forget(self, entry: PlanEntry) -> None:
        """Remove the score that a look found, so that no report takes it for more."""
        stored = {
            index: self._board.get(entry.fingerprint, index) for index in entry.indexes
        }
        for name in {entry.judge, *entry.judges}:
            self._store.forget_score(name_score(self._plan, entry, stored, name))

    def verdict(self, entry: PlanEntry, index: str) -> Verdict:
        """Return the verdict of one sample of a scored dataset.

        If a function of the user's own fails at some samples, the others have verdicts
        and the dataset no score.
        """
        if entry.dataset not in self._verdicts:
            self._verdicts[entry.dataset] = self._verdicts_of(entry)
        verdict = self._verdicts[entry.dataset][index]
        if isinstance(verdict, VlmEvalError):
            raise verdict
        return verdict

    def _verdicts_of(self, entry: PlanEntry) -> Mapping[str, Verdict | VlmEvalError]:
        own = self._own.get(entry.dataset)
        try:
            return {each.index: each for each in self.score(entry).verdicts}
        except NeedsJudgeError:
            raise
        except VlmEvalError:
            if own is None:
                raise
        ask = self._judges[entry.judges[0]].ask if entry.judges else None
        repeats = []
        for repeat in range(self._plan.repeats):
            stored = {i: self._answer(entry, i, repeat) for i in entry.indexes}
            repeats.append(own.attempt(entry, stored, entry.judge, ask))
        found: dict[str, Verdict | VlmEvalError] = {}
        for index in entry.indexes:
            each = [attempt[index] for attempt in repeats]
            failed = [it for it in each if isinstance(it, VlmEvalError)]
            verdicts = [it for it in each if isinstance(it, Verdict)]
            if failed:
                found[index] = failed[0]
            else:
                once = len(verdicts) == 1
                found[index] = verdicts[0] if once else _average_verdict(verdicts)
        return found

    def _score(self, entry: PlanEntry) -> Score:
        return average(
            [self._score_repeat(entry, each) for each in range(self._plan.repeats)]
        )

    def _score_repeat(self, entry: PlanEntry, repeat: int) -> Score:
        stored = {index: self._answer(entry, index, repeat) for index in entry.indexes}
        if len(entry.judges) < 2:
            judge = self._judges.get(entry.judge)
            ask = None if judge is None else judge.ask
            return self._find_or_compute(entry, stored, entry.judge, ask)
        scores = [
            self._find_or_compute(entry, stored, name, self._judges[name].ask)
            for name in entry.judges
        ]
        chosen = choose_by_majority(scores)
        majority = partial(ask_majority, self._judges, chosen)
        return self._find_or_compute(
            entry, stored, entry.judge, majority, lambda it: unite(it, scores, chosen)
        )

    def _find_or_compute(
        self,
        entry: PlanEntry,
        stored: Stored,
        name: str,
        ask: AskJudge | None,
        finish: Callable[[Score], Score] = lambda score: score,
    ) -> Score:
        """Score by one judge, unless this or another process did so already."""
        score_id = name_score(self._plan, entry, stored, name)
        looked_at = time.monotonic()
        while True:
            state = self._store.claim_score(
                score_id,
                self._plan.run_id,
                entry.fingerprint,
                self._board.session_id,
                self._board.owner,
            )
            if state == "mine":
                return self._compute(
                    score_id,
                    lambda: finish(self._score_now(entry, stored, name, ask)),
                    entry.dataset,
                )
            if state != "taken":
                break
            time.sleep(POLL_S)
            if time.monotonic() - looked_at > DEAD_S:
                self._store.release_dead()
                looked_at = time.monotonic()
        found = self._store.load_score(score_id)
        if isinstance(found, Score):
            return found
        raise found or VlmEvalError(f"The score of {entry.dataset} is gone.")

    def _answer(self, entry: PlanEntry, index: str, repeat: int) -> StoredAnswer | None:
        """Wait for an answer; None only where the run never asks for it."""
        try:
            return self._board.wait(entry.fingerprint, index, repeat)
        except VlmEvalError:
            if self._settings.mode == "score":
                return None
            raise

    def _compute(self, score_id: str, make: Callable[[], Score], dataset: str) -> Score:
        """Score, and record the score or why there is none."""
        try:
            score = make()
        except SandboxFault as fault:
            error = VlmEvalError(log_error(self._settings, fault, "Scoring", dataset))
            self._store.fail_score(score_id, error)
            raise error from None
        except VlmEvalError as error:
            self._store.fail_score(score_id, error)
            raise
        except BaseException:
            self._store.abandon_score(score_id, self._board.owner)
            raise
        self._store.finish_score(score_id, score)
        return score

    def _score_now(
        self,
        entry: PlanEntry,
        stored: Stored,
        name: str,
        ask: AskJudge | None,
    ) -> Score:
        usable = {
            index for index, each in stored.items() if each and each.answer.is_usable
        }
        if not usable:
            raise VlmEvalError(
                f"{entry.dataset} has no score: none of its samples was answered."
            )
        scorer: DatasetScorer = self._own.get(entry.dataset) or self._published
        return scorer.score(entry, stored, usable, name, ask)


class PublishedScorer:
    """Scores as ms-vlmeval does, in the sandbox; `fingerprint` names what does that."""

    def __init__(self, settings: Settings, library: Library, fingerprint: str) -> None:
        self._settings = settings
        self._library = library
        self._fingerprint = fingerprint

    def score(
        self,
        entry: PlanEntry,
        stored: Stored,
        usable: Collection[str],
        name: str,
        ask: AskJudge | None,
    ) -> Score:
        """Score the answers by ms-vlmeval's class of the dataset."""
        prepared = self._library.prepared(entry.dataset)
        own = prepared.info.family == "own"
        # There are no published numbers that a user's own table must agree with.
        scoring = self._settings.scoring or ("corrected" if own else "published")
        scored = score_in_sandbox(
            self._library.sandbox_for(entry.dataset),
            prepared,
            self._read_answers(stored, scoring),
            empty=_find_empty(stored),
            judge=ask and partial(ask, fingerprint=entry.fingerprint),
            scoring=scoring,
            deadline_s=self._settings.score_timeout_s,
        )
        counted = {*usable}
        if scoring != "corrected":
            counted |= _find_empty(stored)
        verdicts = tuple(
            each if each.index in usable else _without_answer(each, counted)
            for each in scored.verdicts
        )
        return Score(
            dataset=entry.dataset,
            metrics=scored.metrics,
            main_metric=scored.main_metric,
            value=scored.value,
            best=scored.best,
            samples=len(entry.indexes),
            answered=len(usable),
            correct=sum(is_right(each.value) for each in verdicts),
            undecided=sum(each.state in UNDECIDED for each in verdicts),
            modified=entry.modified,
            data_version=entry.version,
            scorer=f"{self._fingerprint}:{name}",
            judge=name,
            scale=scored.scale,
            scoring=scored.scoring,
            notes=scored.notes,
            differing=sum(each.corrected is not None for each in verdicts),
            sound=scored.sound,
            unread=sum(each.unread for each in verdicts),
            verdicts=verdicts,
        )

    def _read_answers(
        self, stored: Stored, scoring: Scoring
    ) -> list[tuple[str, Sequence[str] | None]]:
        """Return the replies that score, by index; None for what counts as wrong.

        A reply that was cut off scores as it is: ms-vlmeval reads no finish_reason. An
        empty one counts as wrong in corrected scoring; published scoring reads what
        ms-vlmeval's client writes in its place.
        """
        ours = backend_of(self._settings).is_ours
        found: list[tuple[str, Sequence[str] | None]] = []
        for index, each in stored.items():
            answer = None if each is None else each.answer
            if answer is None or not (answer.is_usable or _is_empty(answer)):
                found.append((index, None))
            elif scoring != "corrected":
                found.append((index, answer.predictions(ours=ours)))
            elif answer.is_usable:
                found.append((index, [reply.strip() for reply in answer.replies]))
            else:
                found.append((index, None))
        return found


def _is_empty(answer: Answer) -> bool:
    """Return whether an answer has no text; a broken conversation is no answer."""
    return answer.state == "empty" and answer.turns == 1


def _find_empty(stored: Stored) -> set[str]:
    return {index for index, each in stored.items() if each and _is_empty(each.answer)}


def _without_answer(verdict: Verdict, counted: Collection[str]) -> Verdict:
    """Return the verdict on a sample without a usable answer, which says so.

    Its value stays where it is `counted`, as in the score.
    """
    return replace(
        verdict,
        value=verdict.value if verdict.index in counted else None,
        extracted=None,
        reason=NO_ANSWER,
        unread=False,
        why_lost="",
    )


def write_submission(
    settings: Settings, library: Library, dataset: str, answers: Mapping[str, str]
) -> Submission:
    """Write usable answers by index to `submissions/MODEL/` of the work dir.

    The file is made anew from the stored answers each time. Raises VlmEvalError.
    """
    model = urllib.parse.quote(settings.model or "", safe=" ")
    folder = settings.work_dir / "submissions" / model
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with HeldFolder(".writing-", folder) as scratch:
            written = submit_in_sandbox(
                library.sandbox_for(dataset),
                library.prepared(dataset),
                list(answers.items()),
                scratch,
            )
            file = written.file.replace(folder / written.file.name)
    except OSError as error:
        raise VlmEvalError(
            f"The submission of {dataset} cannot be written to {folder}: "
            f"{error.strerror}. Make that a folder that can be written, then run the "
            "same command again: it uses the answers in the store."
        ) from error
    return Submission(file, written.format)
