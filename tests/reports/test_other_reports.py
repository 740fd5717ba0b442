"""Reports that other programs write or read: JUnit, pytest-html, allure-pytest."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
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
