"""All datasets of the card, from a download server to verdicts, in one command."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.catalog import load_catalog
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from tests.support.conformance import (
    Case,
    Served,
    card,
    format_table,
    repository_files,
    serve,
    table_row,
    verdicts_of,
)
from tests.support.file_server import FileServer
from tests.support.hub_server import HubServer
from tests.support.run_fixtures import CACHE_DIR, endpoint
from tests.support.sandbox_tables import FIXTURES
from tests.support.server_fixtures import ServerProcess

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "datasets.md"
BEGIN = "<!-- The test of conformance writes this table. -->\n"
END = "<!-- Until here. -->\n"
pytestmark = [
    pytest.mark.addons,
    pytest.mark.skipif(not FIXTURES.is_dir(), reason="no seed fixtures"),
]
SECRET = {"DocVQA_TEST", "InfoVQA_TEST", "MLLMGuard_DS", "MMMU_TEST"}
NEEDING_A_JUDGE = {"LLaVABench", "MMBench-Video", "MMLongBench_DOC", "MMVet"}


@pytest.fixture
def served(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> dict[str, Served]:
    """Give every dataset of the card, marked for the servers."""
    catalog = load_catalog(sandbox_environment, tmp_path)
    return {name: serve(catalog[name]) for name in card()}


def run_all(folder: Path, *arguments: str) -> dict[str, list[Case]]:
    """Run the benchmarks; give the cases of each dataset, its score's the last."""
    (folder / "LMUData").mkdir(exist_ok=True)
    report = folder / "junit.xml"
    command = [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p"]
    command += ["no:cacheprovider", f"--junitxml={report}", *arguments]
    # There is no baseline of this model.
    command += ["-k", "not test_no_regression"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("VLM_")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environ | {"LMUData": str(folder / "LMUData")},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    cases: dict[str, list[Case]] = defaultdict(list)
    for case in ET.parse(report).getroot().iter("testcase"):
        found = Case(case)
        dataset = found.properties.get("dataset") or case.attrib["name"]
        cases[dataset].append(found)
    return cases


@pytest.fixture
def arguments(
    served: dict[str, Served],
    file_server: FileServer,
    hub_server: HubServer,
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """Start the servers of files, videos and the model; give what names them."""
    monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VLMEVALKIT_USE_MODELSCOPE", "0")
    answers: dict[str, str] = {}
    for each in served.values():
        if each.info.repository:
            hub_server.repositories[each.info.repository] = repository_files(each)
        else:
            file_server.files[each.file] = each.content
        answers.update(each.answers)
    server.control(answers=answers, default="no row was recognised")
    return [
        *endpoint(server.url),
        f"--vlm-data-mirror={file_server.url}",
        f"--vlm-work-dir={tmp_path / 'work'}",
        f"--vlm-cache-dir={CACHE_DIR}",
    ]


def check_exact(served: dict[str, Served], cases: dict[str, list[Case]]) -> None:
    """Compare the verdicts of a run without a judge."""
    assert set(cases) == served.keys() - SECRET
    for name, found in cases.items():
        assert verdicts_of(found) == served[name].exact, name
        score = found[-1]
        if name in NEEDING_A_JUDGE:
            assert f"{name} is scored by a judge only" in score.message
        else:
            assert score.outcome == "passed", score.message
            scale = float(score.properties["scale"].removeprefix("0 to "))
            assert 0 <= float(score.properties["score"]) <= scale


def check_asked(served: dict[str, Served], cases: dict[str, list[Case]]) -> None:
    """Look at what has secret references, which is asked and never scored."""
    assert set(cases) == SECRET
    for name, found in cases.items():
        assert verdicts_of(found) == served[name].exact, name
        message = f"{name} cannot be scored: no reference answers; "
        assert message in found[-1].message


def check_judged(served: dict[str, Served], cases: dict[str, list[Case]]) -> None:
    """Compare the verdicts of a run with a judge."""
    assert set(cases) == served.keys() - SECRET
    for name, found in cases.items():
        assert verdicts_of(found) == served[name].judged, name
        assert found[-1].outcome == "passed", found[-1].message
        assert found[-1].properties["undecided"] == "0"


def test_every_dataset_of_the_card(
    served: dict[str, Served],
    arguments: list[str],
    vlm_server: Callable[..., ServerProcess],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    asking = [f"--vlm-data={','.join(SECRET)}", "--vlm-mode=infer"]
    asked_only = run_all(tmp_path, *arguments, *asking)
    check_asked(served, asked_only)
    arguments.append(f"--vlm-data={','.join(served.keys() - SECRET)}")
    exact = run_all(tmp_path, *arguments)
    check_exact(served, exact)
    judge = vlm_server(judge="good", models=["judge"])
    arguments += ["--vlm-judge=judge", f"--vlm-judge-api-base={judge.url}"]
    # MathVista's lists and Video-MME's judged answers are right only as corrected.
    arguments += ["--vlm-scoring=corrected"]
    judged = run_all(tmp_path, *arguments)
    check_judged(served, judged)
    asked = len(judge.requests())
    run_all(tmp_path, *arguments)
    assert len(judge.requests()) == asked > 0
    table = format_table(
        [
            table_row(each, found[name], (judged | asked_only)[name])
            for found in [exact | asked_only]
            for name, each in served.items()
        ]
    )
    text = DOCS.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    if request.config.getoption("--write-docs"):
        DOCS.write_text(f"{head}{BEGIN}{table}{END}{rest.partition(END)[2]}", "utf-8")
    else:
        assert rest.partition(END)[0] == table, (
            f"{DOCS.name} is not what was found: write it anew with --write-docs"
        )
