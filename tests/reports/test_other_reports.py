"""Reports that other programs write or read: JUnit, pytest-html, allure-pytest."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from html import unescape
from typing import NamedTuple

import pytest

from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.server_fixtures import ServerProcess

HOSTILE = "\x00\x1b[31m\ud800 ]]> <b>&amp; \u202e" + "x" * 5_000


class Element(NamedTuple):
    """What the published schema says of an element: attributes, and children."""

    required: AbstractSet[str]
    optional: AbstractSet[str] = frozenset()
    children: AbstractSet[str] = frozenset()


# The structure that Jenkins publishes for its reports (xunit-plugin, junit-10.xsd),
# with the properties of a test case, which its JUnit plugin, GitLab and Allure read.
OUTCOME = Element(set(), {"type", "message"})
STREAM = Element(set())
SCHEMA: Mapping[str, Element] = {
    "testsuites": Element(
        set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}
    ),
    "testsuite": Element(
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": Element(
        {"name"},
        {"time", "classname", "group"},
        {"skipped", "error", "failure", "system-out", "system-err", "properties"},
    ),
    "properties": Element(set(), set(), {"property"}),
    "property": Element({"name", "value"}),
    "skipped": OUTCOME,
    "error": OUTCOME,
    "failure": OUTCOME,
    "system-out": STREAM,
    "system-err": STREAM,
}
TIME = re.compile(r"\d*(\.\d*)?")


def violations(element: ET.Element) -> list[str]:
    """Return where a report is not as the schema says."""
    found = []
    rule = SCHEMA[element.tag]
    names = set(element.attrib)
    if missing := rule.required - names:
        found.append(f"{element.tag} lacks {missing}")
    if more := names - rule.required - rule.optional:
        found.append(f"{element.tag} has {more}")
    if not TIME.fullmatch(element.get("time", "0")):
        found.append(f"{element.tag} has the time {element.get('time')}")
    for child in element:
        if child.tag not in rule.children:
            found.append(f"{element.tag} holds {child.tag}")
        else:
            found += violations(child)
    return found


@pytest.fixture
def failing(project: Project, server: ServerProcess) -> list[str]:
    """Give what runs four samples, one of them failed, one hostile."""
    project.write_math(4)
    rules = [
        {"contains": "<1>", "status": 400, "message": f"no image {HOSTILE[:20]!r}"},
        {"contains": "<3>", "answer": HOSTILE},
    ]
    server.control(default="B", rules=rules)
    return endpoint(server.url)


def read_by_gitlab(case: ET.Element) -> str:
    """Tell a case's status as GitLab does (lib/gitlab/ci/parsers/test/junit.rb).

    The first element that is there decides, whatever its attributes.
    """
    for tag, status in (
        ("failure", "failed"),
        ("error", "failed"),
        ("skipped", "skipped"),
    ):
        if case.find(tag) is not None:
            return status
    return "passed"


def read_by_jenkins(case: ET.Element) -> str:
    """Tell a case's status as Jenkins does (junit-plugin, CaseResult.getStatus).

    It is skipped whatever else is there, and failed by any error or failure.
    """
    if case.find("skipped") is not None:
        return "skipped"
    found = [case.find("error"), case.find("failure")]
    return "passed" if found == [None, None] else "failed"


def read_by_dorny(case: ET.Element) -> str:
    """Tell a case's status as GitHub's dorny/test-reporter (python-xunit) does."""
    tags = {child.tag for child in case}
    if tags & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in tags else "passed"


def read_by_mikepenz(case: ET.Element) -> str:
    """Tell a case's status as GitHub's mikepenz/action-junit-report does."""
    tags = {child.tag for child in case}
    if "skipped" in tags or case.get("status") in ("disabled", "ignored"):
        return "skipped"
    return "failed" if tags & {"failure", "error"} else "passed"


READERS: Mapping[str, Callable[[ET.Element], str]] = {
    "GitLab": read_by_gitlab,
    "Jenkins": read_by_jenkins,
    "dorny": read_by_dorny,
    "mikepenz": read_by_mikepenz,
}


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
@pytest.mark.parametrize(
    ("given", "shown", "code", "line"),
    [
        # The default: in the terminal apart, in JUnit no failure, and not "skipped".
        ([], "passed", 0, "=* 2 passed, *2 wrong in *"),
        (["--vlm-wrong=pass"], "passed", 0, "=* 2 passed, *2 wrong in *"),
        (["--vlm-wrong=xfail"], "skipped", 0, "=* 2 passed, *2 xfailed in *"),
        (["--vlm-wrong=fail"], "failed", 1, "=* 2 failed, 2 passed* in *"),
    ],
    ids=["default", "pass", "xfail", "fail"],
)
def test_all_readers_show_wrong_answers_as_asked(
    project: Project,
    server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
    workers: list[str],
    given: list[str],
    shown: str,
    code: int,
    line: str,
) -> None:
    monkeypatch.delenv("VLM_WRONG")
    project.write_math(3)
    server.control(default="B")
    result, cases = project.junit(*endpoint(server.url), *given, *workers)
    assert result.ret == code
    result.stdout.fnmatch_lines([line])
    root = ET.parse(project.pytester.path / "junit.xml").getroot()
    assert violations(root) == []
    # GitLab keeps one of those whose names are the same.
    names = [
        (each.get("classname"), each.get("name")) for each in root.iter("testcase")
    ]
    assert len(set(names)) == len(names) == 4
    for name, read in READERS.items():
        found = {case: read(element) for case, element in cases.items()}
        assert found == {
            "test_sample[MathVision_MINI-1]": shown,
            "test_sample[MathVision_MINI-2]": "passed",
            "test_sample[MathVision_MINI-3]": shown,
            "test_score[MathVision_MINI]": "passed",
        }, name
    wrong = cases["test_sample[MathVision_MINI-1]"]
    told = properties(wrong)
    assert told["verdict"] == "wrong"
    reason = "answered B, reference 10"
    assert told.get("wrong") == (reason if shown == "passed" else None)
    message = "".join(each.get("message", "") for each in wrong)
    if shown == "failed":
        reason = f"MathVision_MINI-1 is wrong (--vlm-wrong=fail): {reason}"
        assert message == f"Failed: {reason}"
    else:
        assert message == ("" if shown == "passed" else reason)


def test_wrong_answers_are_marked_while_it_runs(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLM_WRONG")
    project.write_math(3)
    # As each option, in the ini file too.
    project.pytester.makeini("[pytest]\nvlm_wrong = pass\n")
    server.control(default="B")
    result = project.ask(server.url)
    result.stdout.fnmatch_lines(["test_math.py w.w. *"])
    verbose = project.ask(server.url, "-v", "-n2")
    verbose.stdout.fnmatch_lines_random(
        [
            "*WRONG*test_sample[[]MathVision_MINI-1[]]*",
            "*PASSED*test_sample[[]MathVision_MINI-2[]]*",
        ]
    )
    refused = project.ask(server.url, "--vlm-wrong=skip")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        ["*--vlm-wrong=skip is not accepted: --vlm-wrong takes pass, xfail or fail*"]
    )


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
def test_junit_is_as_its_readers_expect(
    project: Project, failing: list[str], workers: list[str]
) -> None:
    _, cases = project.junit(*failing, *workers)
    root = ET.parse(project.pytester.path / "junit.xml").getroot()
    assert violations(root) == []
    failed = cases["test_sample[MathVision_MINI-1]"].find("failure")
    assert failed is not None
    assert "MathVision_MINI-1 has no usable answer: " in failed.attrib["message"]
    wrong = cases["test_sample[MathVision_MINI-3]"].find("skipped")
    assert wrong is not None
    assert wrong.attrib["type"] == "pytest.xfail"
    assert wrong.attrib["message"].endswith("reference 30")
    score = properties(cases["test_score[MathVision_MINI]"])
    assert score["samples"] == "4"
    assert score["answered"] == "3"
    # Each name once, which is how tables of them are made.
    for case in cases.values():
        names = [each.attrib["name"] for each in case.iter("property")]
        assert len(set(names) - {"note"}) == len([n for n in names if n != "note"])


def test_the_check_finds_what_is_wrong() -> None:
    bad = ET.fromstring(
        '<testsuites><testsuite name="a" tests="1" errors="0" more="1">'
        '<testcase time="1,x"><image/></testcase></testsuite></testsuites>'
    )
    assert violations(bad) == [
        "testsuite lacks {'failures'}",
        "testsuite has {'more'}",
        "testcase lacks {'name'}",
        "testcase has the time 1,x",
        "testcase holds image",
    ]


@pytest.fixture
def all_plugins(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pytest load all plugins that are installed, as it does for users."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.delenv("PYTEST_PLUGINS")


@pytest.mark.usefixtures("all_plugins")
@pytest.mark.parametrize(
    "workers",
    [[], pytest.param(["-n2"], marks=pytest.mark.slow)],
    ids=["one", "xdist"],
)
def test_pytest_html_shows_the_images_of_failed_samples(
    project: Project, failing: list[str], workers: list[str]
) -> None:
    options = ["--html=report.html", "--self-contained-html"]
    project.run(*failing, *workers, *options)
    page = (project.pytester.path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,UklGR") == 1
    assert "MathVision_MINI-1, image 1" in page


@pytest.mark.usefixtures("all_plugins")
@pytest.mark.parametrize(
    ("wrong", "html", "allure"),
    [
        ("pass", "Passed", "passed"),
        ("xfail", "XFailed", "skipped"),
        ("fail", "Failed", "failed"),
    ],
)
def test_html_and_allure_show_wrong_answers_as_asked(
    project: Project, server: ServerProcess, wrong: str, html: str, allure: str
) -> None:
    project.write_math(2)
    server.control(default="B")
    options = ["--html=report.html", "--self-contained-html", "--alluredir=allure"]
    project.ask(server.url, f"--vlm-wrong={wrong}", *options)
    page = (project.pytester.path / "report.html").read_text(encoding="utf-8")
    blob = re.search(r'data-jsonblob="([^"]*)"', page)
    assert blob is not None
    tests = json.loads(unescape(blob[1]))["tests"]
    shown = {
        name.rpartition("::")[2]: each[-1]["result"] for name, each in tests.items()
    }
    assert shown == {
        "test_sample[MathVision_MINI-1]": html,
        "test_sample[MathVision_MINI-2]": "Passed",
        "test_score[MathVision_MINI]": "Passed",
    }
    folder = project.pytester.path / "allure"
    results = [json.loads(file.read_text()) for file in folder.glob("*-result.json")]
    assert {each["name"]: each["status"] for each in results} == {
        "test_sample[MathVision_MINI-1]": allure,
        "test_sample[MathVision_MINI-2]": "passed",
        "test_score[MathVision_MINI]": "passed",
    }


@pytest.mark.usefixtures("all_plugins")
@pytest.mark.parametrize(
    "workers",
    [[], pytest.param(["-n2"], marks=pytest.mark.slow)],
    ids=["one", "xdist"],
)
def test_allure_shows_the_images_of_failed_samples(
    project: Project, failing: list[str], workers: list[str]
) -> None:
    project.run(*failing, *workers, "--alluredir=allure")
    folder = project.pytester.path / "allure"
    results = [json.loads(file.read_text()) for file in folder.glob("*-result.json")]
    attached = {
        result["name"]: result["attachments"]
        for result in results
        if result.get("attachments")
    }
    (only,) = [
        each
        for found in attached.values()
        for each in found
        if each["type"] == "image/webp"
    ]
    assert only["name"] == "MathVision_MINI-1, image 1"
    assert (folder / only["source"]).read_bytes()[8:12] == b"WEBP"
