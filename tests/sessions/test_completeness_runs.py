"""Scores that lack something: each reason fails the score with its own sentence."""

from __future__ import annotations

import base64

from tests.support.gated_tables import gates, write_own
from tests.support.run_fixtures import Project, image_bytes
from tests.support.server_fixtures import ServerProcess

SELECT = ("-k", "test_score")


def test_what_is_missing_fails_unless_it_is_little_enough(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "lost", "cut")
    rules = [
        {"contains": "lost <3>", "status": 400, "message": "no"},
        {"contains": "cut <3>", "answer": "red or", "finish_reason": "length"},
    ]
    server.control(default="red", rules=rules)
    result = project.ask(server.url, *SELECT)
    result.assert_outcomes(failed=2)
    missing = (
        "lost: 1 of 20 samples has no usable answer and counts as wrong in Overall = "
        "95.00."
    )
    result.stdout.fnmatch_lines(
        [
            f"{missing} The items of these samples say why; the same command asks only "
            "them again.",
            "cut: 1 of 20 answers was cut off at the token limit, and what there is "
            "of its text counts in Overall = 95.00; at most 1 % may be cut off. "
            "Raise --vlm-max-tokens, or allow more with --vlm-max-cut-off.",
        ]
    )
    allowed = ("--vlm-min-answered=95", "--vlm-max-cut-off=5")
    project.ask(server.url, *SELECT, *allowed).assert_outcomes(passed=2)
    said = [str(gate["message"]) for gate in gates(project)]
    assert (
        "lost: 1 of 20 samples has no usable answer and 0 were not decided by the "
        "judge, which is allowed (answered at least 95 %, judged at least 99 %). All "
        "count as wrong."
    ) in said
    result = project.ask(
        server.url, "-k", "test_score and lost", "--vlm-min-answered=96"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"{missing} At least 96 % have to be answered. *"])


def test_what_cannot_be_read_is_not_said_to_be_asked_again(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "torn", samples=10)
    path = project.pytester.path / "torn.tsv"
    head, *rows = path.read_text().splitlines()
    torn = base64.b64encode(image_bytes(7)[:200]).decode()
    rows[7:9] = [row.rpartition("\t")[0] + "\t" + torn for row in rows[7:9]]
    path.write_text("\n".join([head, *rows]) + "\n")
    server.control(
        default="red", rules=[{"contains": "torn <3>", "status": 400, "message": "no"}]
    )
    start = "torn: {} of 10 samples have no usable answer and count as wrong in Overall"
    fix = "fix them in the dataset's file, or allow some with --vlm-min-answered."
    result = project.ask(server.url, *SELECT)
    result.stdout.fnmatch_lines(
        [
            f"{start.format(3)} = 70.00. The items of these samples say why; the same "
            "command asks only them again, but for 2 whose rows or images cannot be "
            f"read: {fix}"
        ]
    )
    server.control(default="red")
    again = project.ask(server.url, *SELECT)
    again.stdout.fnmatch_lines(
        [
            f"{start.format(2)} = 80.00. The items of these samples say why; their "
            f"rows or images cannot be read, whenever they are asked: {fix}"
        ]
    )
    assert len(server.requests()) == 1
    allowed = project.ask(server.url, *SELECT, "--vlm-min-answered=80")
    allowed.assert_outcomes(passed=1)


def test_modified_data_are_refused_or_accepted_and_said(
    project: Project, server: ServerProcess
) -> None:
    """Without the option nothing is asked, and the score's own item fails."""
    project.write_math(4)
    server.control(default="B")
    arguments = ["--vlm-model=tiny-vlm", f"--vlm-api-base={server.url}", *SELECT]
    refused, cases = project.junit(*arguments)
    refused.assert_outcomes(failed=1)
    assert list(cases) == ["test_score[MathVision_MINI]"]
    refused.stdout.fnmatch_lines(
        [
            "MathVision_MINI: * is not the published file: *, or evaluate it as it is "
            "with --vlm-allow-modified-data; its score is then marked as modified."
        ]
    )
    assert not [each for each in server.requests() if "Question" in str(each["text"])]
    accepted = project.run(*arguments, "--vlm-allow-modified-data")
    accepted.assert_outcomes(passed=1)
    said = [str(gate["message"]) for gate in gates(project)]
    assert (
        "MathVision_MINI: all 4 samples are answered and scored. Its file is not the "
        "published one, which --vlm-allow-modified-data accepts: compare the score "
        "only with others of this very file."
    ) in said
