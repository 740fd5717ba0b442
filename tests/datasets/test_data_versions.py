"""Several published versions of a dataset's file, and files that are none of them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval import evaluate
from pytest_vlmeval.datasets import catalog
from pytest_vlmeval.datasets.catalog import load_catalog
from pytest_vlmeval.datasets.download import FileAccess, fetch_file, load_versions
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DataVersion
from pytest_vlmeval.reports.export import write_export
from pytest_vlmeval.reports.html import write_html
from pytest_vlmeval.reports.progress import DatasetResult
from pytest_vlmeval.reports.terminal import format_table
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from tests.support.download_calls import (
    CONTENT,
    HURRY,
    MD5,
    OTHER_MD5,
    fail,
    fetch,
    table,
)
from tests.support.file_server import FileServer
from tests.support.run_fixtures import Project, properties
from tests.support.server_fixtures import ServerProcess

NEW = b"index\tquestion\n1\twhich\n"
NEW_MD5 = hashlib.md5(NEW, usedforsecurity=False).hexdigest()
VERSIONS = (
    DataVersion(md5=MD5, date="2024-07-18", origin="VLMEvalKit 646e7bc8"),
    DataVersion(md5=NEW_MD5, date="2026-05-11", origin="VLMEvalKit fbd4d504"),
)


def test_each_known_version_is_published(
    file_server: FileServer, tmp_path: Path
) -> None:
    url = f"{file_server.url}/Table.tsv"
    info = replace(table(url), versions=VERSIONS)
    names = {
        CONTENT: "2024-07-18 (VLMEvalKit 646e7bc8)",
        NEW: "2026-05-11 (VLMEvalKit fbd4d504)",
    }
    for content, name in names.items():
        file_server.files["Table.tsv"] = content
        found = fetch(info, tmp_path)
        assert not found.modified
        assert info.name_version(found.checksum) == name
        found.path.unlink()
    file_server.files["Table.tsv"] = b"other"
    assert (
        f"what came has the MD5 {OTHER_MD5}, the published ones {MD5} of 2024-07-18 "
        f"and {NEW_MD5} of 2026-05-11. Where"
    ) in fail(info, tmp_path)
    file_server.files["Table.tsv"] = NEW + NEW
    found = fetch(info, tmp_path, modified=True)
    assert found.modified
    assert info.name_version(found.checksum) == ""
    # A further file of the dataset has no versions.
    access = FileAccess(tmp_path / "more", tmp_path / "cache", patience=HURRY)
    file_server.files["Table.tsv"] = NEW
    with pytest.raises(VlmEvalError, match=f"{NEW_MD5}, the published one {MD5}"):
        fetch_file(info, url, tmp_path / "more" / "further.tsv", MD5, access)


def test_the_versions_that_are_known() -> None:
    """As VLMEvalKit's history has them; one of each is that of ms-vlmeval."""
    known = load_versions()
    assert set(known) >= {
        "BLINK",
        "BLINK_circular",
        "MMBench_TEST_EN_V11",
        "MMBench_TEST_CN_V11",
    }
    for each_of in known.values():
        assert len({each.md5 for each in each_of}) == len(each_of) > 1
        assert [each.date for each in each_of] == sorted(each.date for each in each_of)
        for each in each_of:
            assert re.fullmatch("[0-9a-f]{32}", each.md5)
            assert re.match("VLMEvalKit [0-9a-f]{8}", each.origin)
        assert sum("ms-vlmeval" in each.origin for each in each_of) == 1
    newest = {name: each_of[-1].md5 for name, each_of in known.items()}
    assert newest["BLINK"] == "d5e8af148b10ac69f535ff7b23f3f989"
    assert newest["BLINK_circular"] == "f44c9f19afda14262cd1e0731bd01f9e"
    assert newest["MMBench_TEST_EN_V11"] == "8d1a704e791df6f5d9fb3ef782b65365"
    assert newest["MMBench_TEST_CN_V11"] == "156e6569f9547afb16603eca16e85373"


def test_the_catalog_has_the_versions(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    found = load_catalog(sandbox_environment, tmp_path)
    for name, known in load_versions().items():
        assert found[name].versions == known
        (ours,) = [e.md5 for e in known if "ms-vlmeval" in e.origin]
        assert found[name].md5 == ours
    assert found["MMStar"].versions == ()


def test_reports_name_the_version(
    project: Project,
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the table at hand were a version that is known."""
    project.write_math(4)
    file = project.data_root / "MathVision_MINI.tsv"
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    known = json.loads(catalog.CATALOG.read_text(encoding="utf-8"))
    (entry,) = [it for it in known["datasets"] if it["name"] == "MathVision_MINI"]
    entry["versions"] = [{"md5": md5, "date": "2030-01-02", "origin": "a commit"}]
    (tmp_path / "catalog.json").write_text(json.dumps(known))
    monkeypatch.setattr(catalog, "CATALOG", tmp_path / "catalog.json")
    monkeypatch.chdir(project.pytester.path)
    server.control(default="B")
    told: list[str] = []
    # Not modified: nothing has to allow it.
    results = evaluate(
        "tiny-vlm", ["MathVision_MINI"], api_base=server.url, progress=told.append
    )
    name = "2030-01-02 (a commit)"
    assert f"MathVision_MINI: data of {name}" in told
    (row,) = results.scores.to_dict("records")
    assert (row["data_version"], row["modified_data"]) == (name, False)
    assert results.score("MathVision_MINI").data_version == name
    write_export(results.report, tmp_path, "tsv")
    (dataset,) = json.loads((tmp_path / "results.json").read_text())["datasets"]
    assert (dataset["data_version"], dataset["md5"]) == (name, md5)
    assert not dataset["modified_data"]
    summary = (tmp_path / "summary.md").read_text()
    assert f"| MathVision_MINI (data of {name}) |" in summary
    write_html(results.report, tmp_path / "report.html", max_mb=1)
    assert f"data of {name}" in (tmp_path / "report.html").read_text()
    result = DatasetResult(
        dataset="D", samples=1, answered=1, modified=False, score=None, version=name
    )
    assert format_table([result])[-1].endswith(f"data of {name}")


@pytest.mark.slow
def test_an_unknown_file_is_downloaded_asked_and_marked(
    project: Project, server: ServerProcess, file_server: FileServer
) -> None:
    project.write_math(4)
    file = project.data_root / "MathVision_MINI.tsv"
    file_server.files["MathVision_MINI.tsv"] = file.read_bytes()
    file.unlink()
    server.control(default="B")
    arguments = (
        "--vlm-model=tiny-vlm",
        f"--vlm-api-base={server.url}",
        f"--vlm-data-mirror={file_server.url}",
    )
    refused = project.run(*arguments)
    refused.stdout.fnmatch_lines(["*what came has the MD5 *--vlm-allow-modified-data*"])
    assert not file.exists()
    assert not server.requests()
    accepted, cases = project.junit(*arguments, "--vlm-allow-modified-data")
    accepted.assert_outcomes(passed=3, xfailed=2)
    accepted.stdout.fnmatch_lines(
        [
            "*downloaded MathVision_MINI: its MD5 is *; it is evaluated as modified *",
            "MathVision_MINI * modified data",
        ]
    )
    assert properties(cases["test_score[MathVision_MINI]"])["modified_data"] == "true"
    assert file.is_file()


def test_the_versions_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    for name, known in load_versions().items():
        for each in known:
            change = f": {each.change}" if each.change else ""
            row = f"| {name} | `{each.md5}` | {each.date} | {each.origin}{change} |"
            assert row in text
