"""Real checkpoints on the CPU: served by ms-swift and transformers, and loaded here."""

from __future__ import annotations

import asyncio
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
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import Reply, Request, RequestError
from pytest_vlmeval.models.local import LocalClient, check_model
from pytest_vlmeval.records import PromptPart
from pytest_vlmeval.settings.groups import LocalModel, Value
from tests.support.conversations import BENCHMARK as DIALOGUES
from tests.support.model_environment import ensure_model_environment
from tests.support.model_servers import ANSWERS, BENCHMARK, DEMO, REACHED, demo_answers
from tests.support.model_servers import checkpoint as checkpoint
from tests.support.model_servers import model_environment as model_environment
from tests.support.run_fixtures import Project, image_bytes, write_table
from tests.support.running import answers, finish, wait_for
from tests.support.sandbox_tables import write_rows_file

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


# As a dataset would ask it.
OWN_TEXT = "Look closely, then say which one it is."


@pytest.fixture(scope="module")
def python() -> Path:
    """Give the interpreter that has torch and ms-vlmeval."""
    return ensure_model_environment() / "bin" / "python"


class Counting:
    """Stands for an interpreter; writes down the processes that are to hold a model."""

    def __init__(self, folder: Path, python: Path) -> None:
        self._starts = folder / "starts"
        self.python = folder / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        self.python.write_text(
            f'#!/bin/sh\ncase "$*" in *serve.py) echo $$ >> {self._starts};; esac\n'
            f'exec {python} "$@"\n'
        )
        self.python.chmod(0o755)

    def pids(self) -> list[int]:
        """Return the processes so far; one that runs is the last."""
        if not self._starts.exists():
            return []
        return [int(line) for line in self._starts.read_text().split()]

    def kill(self) -> None:
        """Kill the one that runs, as a machine without memory does."""
        os.kill(self.pids()[-1], signal.SIGKILL)


@pytest.fixture
def counting(tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    """Give an interpreter that counts."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Counting(tmp_path, python)


def client_of(
    folder: Path, local: LocalModel, model: str = "tiny", max_tokens: int = 8
) -> LocalClient:
    return LocalClient(
        local,
        model=model,
        max_tokens=max_tokens,
        temperature=0,
        timeout_s=120,
        log=folder / "model.log",
    )


def question(folder: Path, text: str = "What colour is it?", rows: str = "") -> Request:
    (folder / "a.png").write_bytes(image_bytes(1))
    image = PromptPart(kind="image", media="a.png", media_type="image/png")
    origin = {
        "dataset": "Mine",
        "index": "7",
        "kind": "multiple_choice" if rows else "other",
        "modality": "image",
        "rows": rows,
    }
    parts = (image, PromptPart(kind="text", text=text))
    return Request(turns=(parts,), media_folder=folder, origin=origin)


@pytest.mark.parametrize("honoured", [True, False])
def test_a_class_builds_its_own_prompt_where_it_has_one(
    tmp_path: Path, python: Path, checkpoint: Path, honoured: bool
) -> None:
    row = {"index": 7, "question": "Which <7>?", "A": "red", "B": "blue", "answer": "A"}
    rows = write_rows_file(tmp_path, [row])
    arguments: dict[str, Value] = {
        "use_custom_prompt": honoured,
        "min_pixels": None,
        "max_pixels": None,
        "verbose": True,  # prints the messages as the model gets them
    }
    local = LocalModel(path=str(checkpoint), python=python, arguments=arguments)
    request = question(tmp_path, OWN_TEXT, rows=str(rows))

    async def ask() -> Reply:
        client = client_of(tmp_path, local, "Qwen2-VL-2B-Instruct")
        try:
            return await client.ask(request)
        finally:
            await client.close()

    assert asyncio.run(ask()).text
    log = (tmp_path / "model.log").read_text()
    # The words of ms-vlmeval's Qwen2VLPromptMixin, and the row's own.
    own = "Please select the correct answer from the options above."
    assert (own in log) is honoured
    assert ("Question: Which <7>?\\nOptions:\\nA. red\\nB. blue" in log) is honoured
    assert (OWN_TEXT in log) is not honoured
    assert str(tmp_path / "a.png") in log


def test_a_process_that_dies_is_started_again_but_not_for_ever(
    tmp_path: Path, counting: Counting, checkpoint: Path
) -> None:
    local = LocalModel(path=str(checkpoint), python=counting.python)
    request = question(tmp_path)

    async def ask_and_kill() -> list[str]:
        client = client_of(tmp_path, local)
        texts = []
        try:
            for _ in range(3):
                texts.append((await client.ask(request)).text)
                counting.kill()
                with pytest.raises(RequestError) as caught:
                    await client.ask(request)
                assert caught.value.kind == "connection"
                assert caught.value.retryable
                assert str(caught.value).startswith(
                    "the process of the local model ended with exit status -9; its "
                    "last lines:"
                )
            with pytest.raises(VlmEvalError) as ended:
                await client.ask(request)
        finally:
            await client.close()
        assert str(ended.value) == (
            "The process of the local model died 3 times; its log is "
            f"{tmp_path / 'model.log'}. Where memory ran out, give a smaller "
            "--vlm-batch-size."
        )
        return texts

    texts = asyncio.run(ask_and_kill())
    assert len(set(texts)) == 1
    assert len(counting.pids()) == 3

    async def ask_one_at_a_time() -> str:
        client = client_of(tmp_path, replace(local, batch_size=1))
        try:
            return (await client.ask(request)).text
        finally:
            await client.close()

    assert [asyncio.run(ask_one_at_a_time())] == texts[:1]


def test_the_python_of_another_environment_has_what_this_one_lacks(
    python: Path, checkpoint: Path
) -> None:
    with pytest.raises(VlmEvalError, match="with --vlm-local-python"):
        check_model("tiny", LocalModel(path=str(checkpoint)))
    check_model("tiny", LocalModel(path=str(checkpoint), python=python))


def test_a_run_goes_on_after_the_death_of_its_model(
    project: Project, counting: Counting, checkpoint: Path
) -> None:
    project.pytester.makepyfile(test_demo=BENCHMARK)
    process = project.start(
        *DEMO,
        "--vlm-model=tiny",
        "--vlm-backend=local",
        f"--vlm-model-path={checkpoint}",
        f"--vlm-local-python={counting.python}",
        "--vlm-batch-size=2",
        "--vlm-limit=16",
    )
    wait_for(lambda: answers(project) >= 2, 120)
    counting.kill()
    output = finish(process)
    assert process.returncode == pytest.ExitCode.OK, output
    assert len(counting.pids()) == 2
    stored = project.stored("SELECT state, count(*) FROM answers GROUP BY state")
    assert stored == [("answered", answers(project))]
    assert "ended with exit status -9" in str(
        project.stored("SELECT message FROM failed_attempts")
    )
    # Of what it was asked nothing is missing, and nothing was answered twice.
    assert not project.stored(
        "SELECT 1 FROM answers GROUP BY fingerprint, sample_index HAVING count(*) > 1"
    )


# The code of Qwen-VL-Chat comes with its weights, from the hub: what can be shown
# without them is that the class loads, on the processor, what transformers knows.
TEXT_MODEL = """
import sys, torch
from transformers import Qwen2Config, Qwen2ForCausalLM
torch.manual_seed(0)
config = Qwen2Config(
    vocab_size=152000, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1,
)
Qwen2ForCausalLM(config).save_pretrained(sys.argv[1])
"""


def test_qwen_chat_is_made_without_a_gpu(
    tmp_path: Path, python: Path, checkpoint: Path
) -> None:
    folder = tmp_path / "text"
    subprocess.run([python, "-c", TEXT_MODEL, str(folder)], check=True)
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer"})
    )
    request = question(tmp_path)
    local = LocalModel(path=str(folder), python=python)

    async def ask() -> str:
        client = client_of(tmp_path, local, "qwen_chat")
        try:
            with pytest.raises(RequestError) as caught:
                await client.ask(request)
        finally:
            await client.close()
        return str(caught.value)

    # It was made, and asked; what answers is in the code that comes with the weights.
    assert "from_list_format" in asyncio.run(ask())
