"""Real servers of a real checkpoint: ms-swift's and transformers' own, on the CPU."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.conversations import BENCHMARK as DIALOGUES
from tests.support.model_servers import ANSWERS, BENCHMARK, DEMO, REACHED, demo_answers
from tests.support.model_servers import checkpoint as checkpoint
from tests.support.model_servers import model_environment as model_environment
from tests.support.run_fixtures import Project, write_table
from tests.support.running import answers, finish, wait_for

pytestmark = pytest.mark.swift

ROOT = Path(__file__).parents[2]
MATHVISION = ROOT.parent / "shared" / "data" / "LMUData" / "MathVision_MINI.tsv"


class Swift:
    """Runs whose server is `swift deploy` on the checkpoint."""

    def __init__(self, project: Project, environment: Path, checkpoint: Path) -> None:
        self.project = project
        self.checkpoint = checkpoint
        words = [str(environment / "bin" / "swift"), "deploy"]
        words += ["--model", str(checkpoint), "--host", "127.0.0.1"]
        words += ["--model_type", "qwen2_vl", "--template", "qwen2_vl"]
        words += ["--max_batch_size", "8", "--port", "{port}"]
        self.command = shlex.join(words)

    def arguments(self, *more: str) -> list[str]:
        """Return the arguments of a run."""
        return [
            f"--vlm-model={self.checkpoint.name}",
            f"--vlm-serve={self.command}",
            "--vlm-serve-timeout=180",
            "--vlm-concurrency=8",
            "--vlm-media-check=stop",
            *more,
        ]

    def processes(self) -> list[int]:
        """Return the servers' processes, the watchdogs left out."""
        listed = subprocess.run(
            ["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True
        )
        return [
            int(line.split()[0])
            for line in listed.stdout.splitlines()
            if str(self.checkpoint) in line
            and not any(word in line for word in ("server_watch", "-m pytest"))
        ]


@pytest.fixture
def swift(
    project: Project,
    model_environment: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Swift]:
    """Give runs with swift; whatever a failed test leaves is ended."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    project.pytester.makepyfile(test_demo=BENCHMARK)
    swift = Swift(project, model_environment, checkpoint)
    yield swift
    for pid in swift.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_transformers_answers_as_the_onnx_files_do(
    checkpoint: Path, model_environment: Path
) -> None:
    # What runs those files is beside pytest alone; all else is of that environment.
    code = (
        "import sys; sys.path.append(sys.argv.pop()); "
        "from demo_model.compare import main; main()"
    )
    command = [str(model_environment / "bin/python"), "-c", code, str(checkpoint)]
    done = subprocess.run(
        [*command, sysconfig.get_path("purelib")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "0 answers differ\n"), done.stderr


def test_swift_answers_as_the_demo_model_does(swift: Swift) -> None:
    result = swift.project.run(*DEMO, *swift.arguments("-n", "2"))
    result.assert_outcomes(**REACHED)
    result.stdout.fnmatch_lines(["vlmeval: Serving at http://127.0.0.1:* after * s"])
    found = swift.project.stored(ANSWERS)
    assert len(found) == 120
    assert found == demo_answers(swift.project)
    assert not swift.processes()


def test_transformers_serve_answers_the_same(
    swift: Swift,
) -> None:
    program = Path(swift.command.split()[0]).with_name("transformers")
    command = f"{program} serve {swift.checkpoint} --host 127.0.0.1 --port {{port}}"
    result = swift.project.run(
        *DEMO,
        f"--vlm-model={swift.checkpoint}",
        f"--vlm-serve={command}",
        "--vlm-concurrency=2",
    )
    result.assert_outcomes(**REACHED)
    assert swift.project.stored(ANSWERS) == demo_answers(swift.project)
    assert not swift.processes()


def test_a_killed_swift_is_started_anew_by_the_next_run(swift: Swift) -> None:
    if not MATHVISION.exists():
        pytest.skip(f"{MATHVISION.name} is not there")
    (swift.project.data_root / MATHVISION.name).symlink_to(MATHVISION)
    swift.project.pytester.makepyfile(
        test_math="from pytest_vlmeval import Benchmark\n\n"
        "class TestMath(Benchmark):\n    datasets = ['MathVision_MINI']\n"
    )
    arguments = swift.arguments(
        "--vlm-limit=40",
        "--vlm-retries=3",
        "--vlm-allow-modified-data",
        # swift leaves images as large as they are; the model saw small ones.
        "--vlm-max-pixels=9408",
    )
    process = swift.project.start("test_math.py", *arguments)
    wait_for(lambda: answers(swift.project) >= 4, 180)
    for pid in swift.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    output = finish(process)
    assert "The model's server ended with exit status 137" in output
    before = swift.project.stored(ANSWERS)
    assert 4 <= len(before) < 40
    result = swift.project.run("test_math.py", *arguments, timeout_s=240)
    assert "failed" not in result.parseoutcomes()
    after = swift.project.stored(ANSWERS)
    assert len(after) == 40
    assert set(before) <= set(after)
    states = swift.project.stored("SELECT DISTINCT state FROM answers")
    assert states == [("answered",)]
    assert not swift.processes()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--vlm-model=tiny", "--vlm-batch-size=16"],
        [
            "--vlm-model=Qwen2-VL-2B-Instruct",
            # Its own prompts are others than those that the model was taught.
            "--vlm-model-args=use_custom_prompt=False min_pixels=None max_pixels=None",
        ],
    ],
    ids=["transformers", "ms-vlmeval"],
)
def test_local_models_answer_the_same(
    swift: Swift, model_environment: Path, arguments: list[str]
) -> None:
    result = swift.project.run(
        *DEMO,
        *arguments,
        "--vlm-backend=local",
        f"--vlm-model-path={swift.checkpoint}",
        f"--vlm-local-python={model_environment / 'bin' / 'python'}",
        timeout_s=400,
    )
    result.assert_outcomes(**REACHED)
    assert swift.project.stored(ANSWERS) == demo_answers(swift.project)


def write_conversation(project: Project) -> None:
    """Put a conversation about two images of the demo's own into place."""
    with (ROOT / "pytest_vlmeval/datasets/demo/DemoOpen.tsv").open(
        encoding="utf-8"
    ) as file:
        rows = list(csv.DictReader(file, delimiter="\t"))[:2]
    questions = [f"<ImageHere>{row['question']}" for row in rows]
    write_table(
        project.data_root / "MMDU.tsv",
        [
            {
                "index": "1",
                "image": str([row["image"] for row in rows]),
                "image_path": "['1.png', '2.png']",
                "question": str([*questions, rows[0]["question"]]),
                "answer": str([row["answer"] for row in (*rows, rows[0])]),
            }
        ],
    )
    project.pytester.makepyfile(test_dialogues=DIALOGUES)


def test_a_conversation_is_the_same_here_and_served(
    swift: Swift, model_environment: Path
) -> None:
    project = swift.project
    write_conversation(project)
    local = [
        "--vlm-backend=local",
        f"--vlm-model-path={swift.checkpoint}",
        f"--vlm-local-python={model_environment / 'bin' / 'python'}",
        "--vlm-allow-modified-data",
    ]
    query = "SELECT turns, earlier, text, state FROM answers"
    project.run("test_dialogues.py", *local, "--vlm-model=tiny", timeout_s=400)
    ((turns, earlier, text, state),) = project.stored(query)
    assert (turns, state) == (3, "answered")
    assert len(json.loads(str(earlier))) == 2
    shutil.rmtree(project.store.parent)
    served = swift.arguments("--vlm-allow-modified-data")
    project.run("test_dialogues.py", *served, timeout_s=240)
    assert project.stored(query) == [(turns, earlier, text, state)]
    # A class of ms-vlmeval that answers single questions only.
    shutil.rmtree(project.store.parent)
    name = "--vlm-model=Qwen2-VL-2B-Instruct"
    result = project.run("test_dialogues.py", *local, name, timeout_s=400)
    result.stdout.fnmatch_lines(
        [
            "*MMDU-1 has no usable answer: turn 1 of 3: the local model failed: "
            "TypeError: the class holds no conversation: it has no chat_inner"
        ]
    )


def test_a_local_checkpoint_that_does_not_load(
    swift: Swift, model_environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    result = swift.project.run(
        *DEMO,
        "--vlm-backend=local",
        "--vlm-model=tiny",
        f"--vlm-model-path={tmp_path}",
        f"--vlm-local-python={model_environment / 'bin' / 'python'}",
        "--vlm-limit=1",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*The local model tiny could not be loaded: *"])
