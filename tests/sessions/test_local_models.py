"""Models that run here: ms-vlmeval's classes, their prompts, the death of a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from demo_model.checkpoint import write_checkpoint
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import Reply, Request, RequestError
from pytest_vlmeval.models.local import LocalClient, check_model
from pytest_vlmeval.records import PromptPart
from pytest_vlmeval.settings.groups import LocalModel, Value
from tests.support.model_environment import ensure_model_environment
from tests.support.model_servers import BENCHMARK, DEMO
from tests.support.run_fixtures import Project, image_bytes
from tests.support.running import answers, finish, wait_for
from tests.support.sandbox_tables import write_rows_file

pytestmark = pytest.mark.swift

# As a dataset would ask it.
OWN_TEXT = "Look closely, then say which one it is."


@pytest.fixture(scope="module")
def python() -> Path:
    """Give the interpreter that has torch and ms-vlmeval."""
    return ensure_model_environment() / "bin" / "python"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the demo model as a checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint") / "demo"
    write_checkpoint(folder)
    return folder


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
