"""Task files run as they are: sessions that a task starts, and what wins over it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings import Settings, load_from
from pytest_vlmeval.settings.sources import pytest_sources
from tests.support.run_fixtures import Project, math_rows, write_table
from tests.support.server_fixtures import ServerProcess
from tests.support.task_files import LOCAL, swift_task, write_task

Server = Callable[..., ServerProcess]
CANARY = "sk-canary-4d1f"


def judged_task(server: ServerProcess, judge: ServerProcess) -> dict[str, Any]:
    """Give the task of a model with a key, and of a judge that needs none."""
    return swift_task(
        top={"work_dir": "outputs"},
        model={
            "api_base": f"{server.url}/chat/completions",
            "key": CANARY,
            "img_size": 32,
            "retry": 1,
        },
        judge="gpt-4o",
        OPENAI_API_KEY="EMPTY",
        OPENAI_API_BASE=f"{judge.url}/chat/completions",
        LOCAL_LLM="qwen2-7b-instruct",
    )


def test_a_swift_task_runs_as_it_is(
    project: Project, vlm_server: Server, installed: Path
) -> None:
    """Its model, images, prompt, judge and limit are those of the file."""
    server = vlm_server(models=["qwen-vl-chat"], api_key=CANARY)
    judge = vlm_server(models=["qwen2-7b-instruct"], default="1")
    project.write_math(4)
    place = installed / "benchmarks"
    write_task(project.pytester.path / "task.yaml", judged_task(server, judge))
    # Without a path it runs in the suite that comes with the plugin.
    (project.pytester.path / "test_math.py").write_text("assert False")
    arguments = ["--vlm-config=task.yaml", "--vlm-max-tokens=64", "-n2"]
    result = project.run(*arguments, "--vlm-allow-modified-data")
    out = result.stdout.str() + result.stderr.str()
    assert result.ret in (0, 1), out
    result.stdout.fnmatch_lines(
        [
            f"vlmeval: no path is given, so the datasets of the task run in {place}*",
            "*eval_config.judge has no effect here: LOCAL_LLM stands for any judge",
            "*--vlm-max-tokens=64 counts, not eval_config.*.max_tokens (a number) in *",
            f"vlmeval: model qwen-vl-chat at {server.url}*, judge qwen2-7b-*",
        ]
    )
    assert CANARY not in out
    result.assert_outcomes(passed=2, xfailed=1)
    assert out.count("no path is given") == 1
    asked = [each for each in server.requests() if "Question" in str(each["text"])]
    assert len(asked) == 2
    for each in asked:
        params = each["params"]
        assert isinstance(params, dict)
        assert (each["model"], params["max_tokens"]) == ("qwen-vl-chat", 64)
        assert each["system"] == "Answer in one word."
    assert judge.requests(None)
    outputs = project.pytester.path / "outputs"
    assert (outputs / "store.sqlite").exists()
    # Where EvalScope's summarizer looks: work_dir/MODEL/*.csv, of each the first row.
    result.stdout.fnmatch_lines(
        [f"1 result table: {outputs}/qwen-vl-chat/qwen-vl-chat_MathVision_MINI_acc.csv"]
    )
    (table,) = (outputs / "qwen-vl-chat").glob("*.csv")
    assert table.name == "qwen-vl-chat_MathVision_MINI_acc.csv"
    with table.open(encoding="utf-8", newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["split"], first["acc"], first["samples"]) == ("Overall", "50.0", "2")


def test_errors_end_the_session(project: Project) -> None:
    project.write_math(2)
    write_task(project.pytester.path / "task.json", swift_task(limit=0))
    result = project.run("--vlm-config=task.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: eval_config.limit (a number) in */task.json is not accepted: "
            "--vlm-limit takes a whole number of at least 1 (samples)."
        ]
    )


def test_a_local_task_says_what_it_needs(project: Project) -> None:
    """Without torch in the environment that is the end, before anything is loaded."""
    project.write_math(2)
    task = {
        "eval_backend": "VLMEvalKit",
        "eval_config": {"model": [LOCAL], "data": ["MathVision_MINI"]},
    }
    write_task(project.pytester.path / "task.yaml", task)
    result = project.run(
        "--vlm-config=task.yaml", "--vlm-allow-modified-data", "test_math.py"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["vlmeval: model qwen_chat here, from models/*"])
    result.stderr.fnmatch_lines(["ERROR: --vlm-backend=local needs torch*"])


def test_a_class_that_is_another(project: Project, server: ServerProcess) -> None:
    project.write_math(2)
    task = {
        "model": {"a": {"class": "GPT4V", "model": "tiny-vlm", "api_base": server.url}},
        "data": {"M": {"class": "ImageMCQDataset", "dataset": "MathVision_MINI"}},
    }
    path = write_task(project.pytester.path / "config.json", task)
    result = project.run(
        f"--vlm-config={path}", "--vlm-allow-modified-data", "test_math.py"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: --vlm-config names ImageMCQDataset as the class of MathVision_MINI,"
            " which is MathVision in ms-vlmeval. Name that, or leave class out."
        ]
    )
    write_table(project.data_root / "MathVision.tsv", math_rows(2))
    (project.pytester.path / "test_both.py").write_text(
        "from pytest_vlmeval import Benchmark\n\nclass TestBoth(Benchmark):\n"
        "    datasets = ['MathVision_MINI', 'MathVision']\n"
    )
    task["data"] = {
        "M": {"class": "MathVision", "dataset": "MathVision_MINI"},
        "N": {"dataset": "MathVision"},
    }
    write_task(path, task)
    result = project.run(
        f"--vlm-config={path}", "--vlm-allow-modified-data", "test_both.py"
    )
    assert result.ret == pytest.ExitCode.OK
    assert len(server.requests()) == 4


Load = Callable[..., Settings]


@pytest.fixture
def load(pytester: pytest.Pytester) -> Load:
    """Return what loads the settings of a task among other places for options."""

    def load(task: object, *arguments: str, ini: str = "", **environ: str) -> Settings:
        write_task(pytester.path / "task.yaml", task)
        pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n{ini}")
        config = pytester.parseconfig("--vlm-config=task.yaml", *arguments)
        return load_from(pytest_sources(config, {"HOME": "/nowhere", **environ}))

    return load


def test_the_command_line_wins_then_the_file_then_the_rest(load: Load) -> None:
    task, ini = swift_task(limit=2, nproc=4), 'vlm_limit = "3"'
    first = load(task, "--vlm-limit=1", ini=ini, VLM_CONCURRENCY="5")
    assert (first.limit, first.concurrency) == (1, 4)
    path = "/task.yaml"
    said = {_tail(remark, path) for remark in first.remarks}
    assert said == {
        "--vlm-limit=1 counts, not eval_config.limit (a number) in task.yaml",
        "eval_config.nproc (a number) in task.yaml counts, not VLM_CONCURRENCY=5",
    }
    second = load(task, ini=ini, VLM_LIMIT="2")
    assert second.limit == 2
    assert [_tail(remark, path) for remark in second.remarks] == [
        "eval_config.limit (a number) in task.yaml counts, not vlm_limit = 3 in the "
        "ini file"
    ]
    # Those that agree say nothing, however they write it.
    assert not load(task, "--vlm-temperature=0", "--vlm-concurrency=04").remarks


def _tail(remark: str, path: str) -> str:
    words = [
        word.rsplit("/", 1)[-1] if word.endswith(path) else word
        for word in remark.split(" ")
    ]
    return " ".join(words)


def test_keys_go_by_the_same_order_and_empty_is_none(
    load: Load, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("from-file", encoding="utf-8")
    task = swift_task(model={"key": CANARY})
    assert load(task, f"--vlm-api-key-file={file}").api_key == "from-file"
    settings = load(task, VLM_API_KEY="from-env")
    assert settings.api_key == CANARY
    (remark,) = settings.remarks
    assert remark.endswith("task.yaml counts, not VLM_API_KEY")
    assert CANARY not in f"{settings!r} {settings.remarks} {settings.api_key!r}"
    assert load(swift_task(), VLM_API_KEY="from-env").api_key == "from-env"


def test_errors_of_options_together_name_the_file(load: Load) -> None:
    task = swift_task(data=["Video-MME"], nframe=4)
    with pytest.raises(VlmEvalError) as caught:
        load(task, "--vlm-fps=1")
    said = str(caught.value)
    assert said.startswith("--vlm-nframe and --vlm-fps exclude each other: ")
    assert said.endswith("/task.yaml gives --vlm-nframe (eval_config.nframe).")


def test_a_key_in_the_file_stays_out_of_messages(load: Load) -> None:
    for task in (
        swift_task(model={"key": CANARY, "temperature": "warm"}),
        swift_task(model={"key": [CANARY]}),
        swift_task(model={"api_base": f"http://u:{CANARY}@h/v1", "timeout": 0}),
        swift_task(judge="j", judge_key=CANARY, OPENAI_API_KEY="another"),
    ):
        with pytest.raises(VlmEvalError) as caught:
            load(task)
        assert CANARY not in str(caught.value)
        found: list[Any] = [caught.value]
        while (error := found[-1].__cause__ or found[-1].__context__) is not None:
            found.append(error)
        assert not [error for error in found if CANARY in f"{error} {error!r}"]
