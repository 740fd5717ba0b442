"""The quick starts and the steps: each command runs as it stands, one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest

from tests.support.documentation import ROOT, block, blocks, read, run_shell
from tests.support.run_fixtures import (
    Project,
    choice_rows,
    image_bytes,
    write_table,
)
from tests.support.server_fixtures import ServerProcess

pytestmark = pytest.mark.slow

EXAMPLE = "Fixtures give tests the model's answers and the judge"
Reader = Callable[[str, Mapping[str, ServerProcess]], list[str]]


@pytest.fixture
def reader(
    project: Project, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> Reader:
    """Give who reads a page in an empty folder, and returns what each block printed."""
    for name in ("PYTEST_ADDOPTS", "VLM_ALLOW_MISSING_BASELINE", "VLM_REUSE"):
        monkeypatch.delenv(name)
    # The rows are invented.
    monkeypatch.setenv("VLM_ALLOW_MODIFIED_DATA", "yes")
    for name in ("MMStar", "RealWorldQA"):
        rows = list(choice_rows(name, 24))
        write_table(project.data_root / f"{name}.tsv", rows)
    folder = project.pytester.path

    def follow(page: str, servers: Mapping[str, ServerProcess]) -> list[str]:
        outputs = []
        # What a block exports stays; `pwd` of each is the folder.
        exported = ""
        for shown in blocks(read(ROOT / f"docs/{page}.md")):
            # Other tests install the wheel, and start swift.
            if shown.language != "sh" or shown.code.startswith(("pip ", "swift ")):
                continue
            code = shown.code
            for port, server in servers.items():
                code = code.replace(f"http://127.0.0.1:{port}/v1", server.url)
            # The address that runs ask without one.
            environ = {"VLM_API_BASE": servers["8000"].url}
            done = run_shell(f"set -e\n{exported}{code}", folder, environ)
            assert done.returncode == 0, f"{code}\n{done.stdout}"
            exported += "".join(re.findall(r"^export .*\n", code, re.MULTILINE))
            outputs.append(done.stdout)
        return outputs

    return follow


def serve(
    start: Callable[..., ServerProcess], *models: str, **script: object
) -> ServerProcess:
    """Start a server of models that answer B, which is right."""
    return start(models=list(models), **{"default": "B", **script})


def test_for_who_trains_a_model(
    reader: Reader, project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    folder = project.pytester.path
    (folder / "photo.png").write_bytes(image_bytes(1))
    row = {"question": "Which?", "answer": "B", "A": "a", "B": "b"}
    write_table(folder / "validation.tsv", [{**row, "image_path": "photo.png"}])
    server = serve(vlm_server, "step-1000", "step-2000")
    first, second, own = reader("quick-training", {"8000": server})
    assert "MMStar" in first
    assert "step-2000" in second
    assert "against step-1000" in second
    assert (folder / "changes.html").is_file()
    assert "validation" in own


def test_for_who_serves_a_model(
    reader: Reader, project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    servers = {port: serve(vlm_server, "qwen2-vl") for port in ("8000", "8001")}
    written, again, changed, doctor = reader("quick-serving", servers)
    assert "2 snapshots generated." in written
    assert "2 snapshots passed." in again
    assert "2 snapshots passed." in changed
    assert (project.pytester.path / "report.html").is_file()
    assert "All is well." in doctor


def test_for_who_chooses_a_model(
    reader: Reader, project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    folder = project.pytester.path
    (folder / "photos").mkdir()
    for number in range(1, 4):
        (folder / f"photos/{number}.jpg").write_bytes(image_bytes(number, "JPEG"))
    servers = {}
    for port, name in (("8000", "a"), ("8001", "b")):
        (folder / f"key-{name}.txt").write_text(f"sk-{name}\n")
        servers[port] = serve(
            vlm_server,
            f"model-{name}",
            api_key=f"sk-{name}",
            answers={"serial number": "KX-204", "lamp": "green", "screws": "2"},
        )
    _, asked, compared = reader("quick-buying", servers)
    assert asked.count("100.00") >= 2
    assert "sk-" not in asked
    assert "100.00 %" in compared
    assert (folder / "comparison.html").is_file()


def test_for_who_publishes_a_number(
    reader: Reader, project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    folder = project.pytester.path
    servers = {
        "8000": serve(vlm_server, "qwen2-vl"),
        "8866": serve(vlm_server, "qwen2-7b-instruct", judge="good"),
    }
    published, judged, corrected, repeated = reader("quick-research", servers)
    assert "MMStar" in published
    assert "judge qwen2-7b-instruct" in judged
    assert "corrected scoring" in corrected
    assert "mean of 3 repeats" in repeated
    # What the page computes from the files, and where it finds what a paper states.
    samples = pd.read_parquet(folder / "results/samples.parquet")
    assert samples.groupby("category")["value"].mean().tolist() == [1, 1]
    results = json.loads(read(folder / "results/results.json"))
    assert {"temperature", "max_tokens"} <= {*results["run"]["settings"]}
    (dataset,) = results["datasets"]
    assert {"md5", "data_version", "outcomes"} <= {*dataset}
    assert {"scoring", "judge"} <= {*dataset["score"]}
    assert re.fullmatch(r"pytest-vlmeval [\d.]+", results["generator"])


def test_each_step(
    reader: Reader, project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    folder = project.pytester.path
    servers = {
        "8000": serve(vlm_server, "qwen-vl-chat"),
        "8866": serve(vlm_server, "qwen2-7b-instruct", judge="good"),
    }
    listed, downloaded, asked, task, models, judged, items, gated, *_ = reader(
        "steps", servers
    )
    assert "MMStar" in listed
    assert "MMStar" in downloaded
    assert "100.00" in asked
    assert "RealWorldQA" in task
    assert "qwen_chat" in models
    assert "judge qwen2-7b-instruct" in judged
    assert "test_sample[MMStar-17]" in items
    assert "2 snapshots generated." in gated
    assert "2 snapshots passed." in gated
    assert (folder / "report.xml").is_file()
    # The example with fixtures, in the project that the page has written.
    example = block(read(ROOT / "docs/steps.md"), EXAMPLE, "python")
    (folder / "benchmarks/test_brevity.py").write_text(example, encoding="utf-8")
    reply = json.dumps({"reason": "It is.", "verdict": "yes"})
    servers["8866"].control(models=["qwen2-7b-instruct"], default=reply)
    done = run_shell(
        "pytest --vlm-model=qwen-vl-chat --vlm-limit=4 benchmarks/test_brevity.py "
        f"--vlm-judge=qwen2-7b-instruct --vlm-judge-api-base={servers['8866'].url}",
        folder,
        {"VLM_API_BASE": servers["8000"].url},
    )
    assert "4 passed" in done.stdout, done.stdout
