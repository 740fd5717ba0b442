"""What a report says first: whether the run failed, and why each sample did."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_vlmeval.records import Answer, GateResult, Interval, Start, Verdict
from pytest_vlmeval.reports.html import render_html
from pytest_vlmeval.reports.record import (
    Before,
    Cause,
    DatasetReport,
    RunReport,
    SampleReport,
)
from pytest_vlmeval.reports.summary import (
    Conclusion,
    by_urgency,
    conclude,
    summarize,
    total,
)
from pytest_vlmeval.reports.wording import CAUSES, describe_failure

RIGHT = Answer(fingerprint="f", index="1", state="answered", text="B", endpoint="here")
PASSED = GateResult(
    dataset="Data",
    gate="threshold",
    outcome="passed",
    message="It passes.",
    metric="Overall",
    value=60.0,
    expected=50.0,
)
FAILED = replace(PASSED, outcome="failed", fails=True, expected=80.0)
LOST = replace(
    FAILED, gate="baseline", message="It is worse.\n  lost  4", lost=1, gained=0
)


def sample(index: str, verdict: Verdict | None, **answer: object) -> SampleReport:
    given = replace(RIGHT, index=index, **answer)  # type: ignore[arg-type]
    return SampleReport(index=index, answer=given, verdict=verdict)


def verdict(value: float | None, **more: object) -> Verdict:
    return Verdict(index="1", value=value, **more)  # type: ignore[arg-type]


def report(*samples: SampleReport, gates: tuple[GateResult, ...] = ()) -> RunReport:
    dataset = DatasetReport(
        dataset="Data",
        fingerprint="f",
        modified=False,
        samples=samples or (sample("1", verdict(1.0)),),
        gates=gates,
    )
    return RunReport(
        version="1",
        run_id="run-1",
        model="m",
        settings={},
        began_at=1.7e9,
        start=Start(),
        scorer="s",
        datasets=(dataset,),
    )


def concluded(run: RunReport) -> Conclusion:
    return conclude(run, total([summarize(each) for each in run.datasets]))


def test_what_a_run_comes_to() -> None:
    none = replace(PASSED, rule="none")
    inconclusive = replace(PASSED, outcome="inconclusive")
    for gates, state, said in (
        ((), "ungated", "no gate was set"),
        ((none,), "ungated", "no gate was set"),
        ((PASSED,), "passed", "1 of 1 gates passed"),
        ((PASSED, inconclusive), "passed", "1 of 2 gates passed, 1 inconclusive"),
        ((FAILED, PASSED), "failed", "1 of 2 gates passed"),
    ):
        found = concluded(report(gates=gates))
        assert (found.state, found.gates) == (state, said)
    # What fails a test beside all gates.
    empty = sample("2", None, state="empty", text="")
    missing = SampleReport(index="3")
    unclear = sample("4", verdict(None, state="judge_unclear"))
    found = concluded(report(empty, missing, unclear, gates=(PASSED,)))
    assert (found.state, found.gates) == ("failed", "1 of 1 gates passed")
    assert (found.unusable, found.missing, found.undecided) == (1, 1, 1)
    unscored = report(gates=(PASSED,))
    (dataset,) = unscored.datasets
    dataset = replace(dataset, no_score="it broke", failed_to_score=True)
    broken = replace(unscored, datasets=(dataset,))
    assert concluded(broken).unscored == ("Data",)
    assert concluded(broken).state == "failed"
    page = render_html(broken, max_mb=1)
    link = '<a href="#view=dataset&amp;dataset=Data">Data</a>'
    assert f"<li>1 dataset could not be scored: {link}</li>" in page


def test_wrong_answers_fail_where_they_fail_tests() -> None:
    was = Before(outcome="correct", value=1.0, text="B")
    lost = replace(sample("1", verdict(0.0), text="A"), before=was)
    run = report(lost, sample("2", verdict(0.0), text="A"), gates=(PASSED,))
    assert concluded(run).state == "passed"
    for fails, count in (("regressed", 1), ("wrong", 2)):
        found = concluded(replace(run, start=Start(fails=fails)))  # type: ignore[arg-type]
        assert (found.state, found.wrong) == ("failed", count)


def test_gates_that_fail_come_first() -> None:
    inconclusive = replace(PASSED, outcome="inconclusive")
    strict = replace(inconclusive, fails=True)
    allowed = replace(FAILED, fails=False)
    given = [PASSED, inconclusive, allowed, FAILED, strict]
    assert by_urgency(given) == [FAILED, strict, allowed, inconclusive, PASSED]


def test_the_page_begins_with_what_failed() -> None:
    page = render_html(report(gates=(PASSED, FAILED, LOST)), max_mb=1)
    before, found, after = page.partition('<div class="card verdict failed"')
    assert found
    assert 'class="tiles"' not in before
    assert 'class="gates"' not in before
    banner = after[: after.index("</div>")]
    assert "Failed <span>1 of 3 gates passed</span>" in banner
    assert "Overall is 60.00, the threshold is 80.00" in banner
    assert "Overall is 60.00, the baseline was 80.00, 1 lost and 0 gained" in banner
    cards = after[after.index('<ul class="gates">') :]
    assert cards.index("pill failed") < cards.index("pill passed")
    # Without any that failed, gates stand below the scores.
    none, written = (replace(PASSED, rule=rule) for rule in ("none", "written"))
    passed = render_html(report(gates=(PASSED, none, written)), max_mb=1)
    folded = "<summary>Gates: 1 not set, 1 passed, 1 written</summary>"
    assert '<span class="pill written">written</span>' in passed
    assert '<span class="pill not-set">not set</span>' in passed
    assert passed.index('class="scores') < passed.index(folded)
    ungated = render_html(report(), max_mb=1)
    assert '<div class="card verdict ungated"' in ungated
    assert "No gate was set" in ungated
    assert "passed</span>" not in ungated


def test_levels_of_intervals() -> None:
    said = (
        "Intervals are 90 % intervals, each bound of which holds with 95 %, as gates "
    )
    interval = Interval(low=50, high=70, level=0.9, method="Wilson")
    page = render_html(report(gates=(replace(PASSED, interval=interval),)), max_mb=1)
    assert f"{said}decide.</p>" in page
    other = replace(PASSED, interval=replace(interval, level=0.98))
    page = render_html(report(gates=(other,)), max_mb=1)
    assert f"{said}decide; a gate with a level of its own states it.</p>" in page


def test_markup_in_a_command_or_a_message_stays_text() -> None:
    hostile = "<script>alert(1)</script>"
    gate = replace(FAILED, message=f"{hostile}\n  value  {hostile}")
    start = Start(command=f"pytest {hostile}", versions={hostile: hostile})
    run = replace(report(sample("</script>", None), gates=(gate,)), start=start)
    page = render_html(run, max_mb=1)
    assert hostile not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5
    assert page.count("</script>") == page.count("<script")


def test_failures_of_gates_in_a_clause() -> None:
    complete = replace(FAILED, gate="completeness", metric="answered", value=93.75)
    found = describe_failure(replace(complete, expected=100.0))
    assert found == "93.8 % answered, at least 100 % expected"
    cut_off = replace(complete, metric="cut off", value=4.0, expected=1.0)
    assert describe_failure(cut_off) == "4 % cut off, at most 1 % expected"
    unknown = replace(LOST, value=None, message="Data has no baseline.\nMake one.")
    assert describe_failure(unknown) == "Data has no baseline."


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (sample("1", verdict(1.0)), None),
        (sample("1", None), None),
        (SampleReport(index="1"), "missing"),
        (sample("1", None, state="failed", error="HTTP 500"), "failed"),
        (sample("1", None, state="filtered"), "filtered"),
        (sample("1", verdict(None, state="judge_failed")), "judge_failed"),
        (sample("1", verdict(None, state="judge_unclear")), "judge_unclear"),
        (sample("1", verdict(0.0)), "wrong"),
        (sample("1", verdict(0.0, unread=True)), "unread"),
        (sample("1", verdict(0.0, why_lost="no option")), "unanswerable"),
        (
            sample("1", verdict(0.0, unread=True), finish_reason="length"),
            "cut_off",
        ),
        (sample("1", verdict(1.0), finish_reason="length"), None),
    ],
)
def test_the_cause_of_a_failure(given: SampleReport, cause: Cause | None) -> None:
    assert given.cause == cause
    assert cause is None or cause in CAUSES
