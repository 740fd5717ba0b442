"""Task files of EvalScope and VLMEvalKit: what each field becomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.local import order_of
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.settings import Settings, load_settings
from pytest_vlmeval.settings.groups import parse_arguments
from tests.support.task_files import LOCAL, SERVED, read_task, swift_task, write_task

Load = Callable[..., Settings]


@pytest.fixture
def load(pytester: pytest.Pytester) -> Load:
    """Return what loads the settings of a task, with options beside it."""

    def load(
        task: object,
        *arguments: str,
        ini: str = "",
        environ: dict[str, str] | None = None,
        name: str = "task.yaml",
    ) -> Settings:
        write_task(pytester.path / name, task)
        pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n{ini}")
        config = pytester.parseconfig(f"--vlm-config={name}", *arguments)
        return load_settings(config, {"HOME": "/nowhere", **(environ or {})})

    return load


@pytest.mark.parametrize("name", ["task.yaml", "task.yml", "task.json"])
def test_a_task_for_a_served_model(
    load: Load, pytester: pytest.Pytester, name: str
) -> None:
    task = swift_task(
        top={"work_dir": "outputs"},
        model={"key": "sk-1", "retry": 3, "timeout": 60, "top_p": 0.9},
        mode="eval",
        judge="qwen3",
        judge_base_url="http://127.0.0.1:8866/v1",
        judge_key="sk-2",
    )
    settings = load(task, name=name)
    assert settings.model == "qwen-vl-chat"
    assert settings.backend == "endpoint"
    assert settings.api_bases == ("http://127.0.0.1:8000/v1/chat/completions",)
    assert settings.api_key == "sk-1"
    assert settings.temperature == 0
    assert settings.max_tokens == 512
    assert settings.prompting.image_size == 224
    assert settings.prompting.image_detail == "low"
    assert settings.prompting.system_prompt == "Answer in one word."
    assert json.loads(settings.prompting.extra_body) == {"top_p": 0.9}
    assert not settings.video_url
    assert (settings.retries, settings.timeout_s) == (3, 60)
    assert settings.data == ("MathVision_MINI",)
    assert (settings.mode, settings.limit, settings.concurrency) == ("score", 2, 4)
    assert not settings.fresh
    assert settings.work_dir == pytester.path / "outputs"
    (judge,) = settings.judges
    assert (judge.name, judge.api_key) == ("qwen3", "sk-2")
    assert judge.api_bases == ("http://127.0.0.1:8866/v1",)
    assert settings.remarks == ()


def test_a_task_for_a_local_model(
    load: Load, sandbox_environment: SandboxEnvironment
) -> None:
    model = {**LOCAL, "max_new_tokens": 1024, "prompt": "it's, 'so'", "n_layers": 2}
    settings = load(swift_task() | {"eval_config": {"model": [model], "data": ["MME"]}})
    assert (settings.model, settings.backend) == ("qwen_chat", "local")
    assert settings.local.path == "models/Qwen-VL-Chat"
    assert settings.max_tokens == 1024
    given = {"max_new_tokens": 1024, "prompt": "it's, 'so'", "n_layers": 2}
    assert settings.local.arguments == given
    # As ms-vlmeval's own configuration has it, with the file's fields on top.
    python = sandbox_environment.python
    order, _, _ = order_of("qwen_chat", _with_python(settings, python))
    assert order["class_name"] == "QwenVLChat"
    assert order["arguments"] == {**given, "model_path": "models/Qwen-VL-Chat"}


def _with_python(settings: Settings, python: Path) -> Any:
    from dataclasses import replace

    return replace(settings.local, python=python)


def test_names_alone_are_local_models_or_served_at_base_url(load: Load) -> None:
    config: dict[str, Any] = {"model": ["qwen_chat"], "data": ["MME"]}
    task = {"eval_backend": "VLMEvalKit", "eval_config": config}
    assert load(task).backend == "local"
    config |= {"base_url": "http://h:1/v1", "key": "k", "top_k": 4, "video_llm": True}
    config |= {"extra_body": '{"min_p": 0.1}', "temperature": 0.5}
    settings = load(task)
    assert (settings.model, settings.backend) == ("qwen_chat", "endpoint")
    assert settings.api_bases == ("http://h:1/v1",)
    assert settings.api_key == "k"
    assert json.loads(settings.prompting.extra_body) == {"top_k": 4, "min_p": 0.1}
    assert settings.video_url
    # What ms-vlmeval takes there where nothing is said.
    assert (settings.temperature, settings.max_tokens) == (0.5, 2**15)
    assert settings.timeout_s == 1800
    assert load(task, environ={"VLM_MAX_TOKENS": "9"}).max_tokens == 9


def test_a_configuration_of_vlmevalkit(
    load: Load, sandbox_environment: SandboxEnvironment
) -> None:
    task: dict[str, Any] = {
        "model": {
            "cold": {"class": "GPT4V", "model": "m", "api_base": "http://h/v1"},
            "warm": {
                "class": "CustomAPIModel",
                "model": "m",
                "api_base": "OFFICIAL",
                "temperature": 1.0,
            },
            "mine": {"class": "QwenVLChat", "model_path": "weights"},
            "Qwen2-VL-2B-Instruct": {},
        },
        "data": {
            "MMBench": {"class": "ImageMCQDataset", "dataset": "MMBench_DEV_EN_V11"},
            "Video-MME_64frame": {},
            "V16": {"class": "VideoMME", "dataset": "Video-MME", "nframe": 16},
        },
    }
    cold = load(task, "--vlm-model=cold", name="c.json")
    assert (cold.model, cold.api_bases) == ("m", ("http://h/v1",))
    assert (cold.temperature, cold.prompting.image_detail) == (0, "low")
    assert cold.data == ("MMBench_DEV_EN_V11", "Video-MME_64frame", "Video-MME")
    assert cold.nframe == 16
    assert cold.classes == {
        "MMBench_DEV_EN_V11": "ImageMCQDataset",
        "Video-MME": "VideoMME",
    }
    warm = load(task, "--vlm-model=warm", name="c.json")
    assert (warm.model, warm.temperature) == ("m", 1)
    assert warm.api_bases == ("https://api.openai.com/v1",)
    assert warm.prompting.image_detail == "high"
    mine = load(task, "--vlm-model=mine", name="c.json")
    assert (mine.model, mine.backend, mine.local.path) == ("mine", "local", "weights")
    order, _, _ = order_of("mine", _with_python(mine, sandbox_environment.python))
    assert (order["class_name"], order["module"]) == ("QwenVLChat", "qwen_vl")
    shortcut = load(task, "--vlm-model=Qwen2-VL-2B-Instruct", name="c.json")
    assert (shortcut.model, shortcut.backend) == ("Qwen2-VL-2B-Instruct", "local")


def test_gpt4v_is_openai_s_where_no_address_is_given(load: Load) -> None:
    task = {"model": {"a": {"class": "GPT4V", "model": "gpt-4o"}}, "data": {"MME": {}}}
    assert load(task, name="c.json").api_bases == ("https://api.openai.com/v1",)
    mine = load(task, name="c.json", environ={"VLM_API_BASE": "http://h/v1"})
    assert (mine.api_bases, mine.remarks) == (("http://h/v1",), ())


def test_a_class_that_is_not_there(
    load: Load, sandbox_environment: SandboxEnvironment
) -> None:
    task = {"model": {"m": {"class": "Qwen2VLChatt"}}, "data": {"MME": {}}}
    settings = load(task, name="c.json")
    with pytest.raises(VlmEvalError) as caught:
        order_of("m", _with_python(settings, sandbox_environment.python))
    assert str(caught.value) == (
        "ms-vlmeval has no class 'Qwen2VLChatt' that loads a model. Did you mean "
        "Qwen2VLChat or QwenVLChat or Qwen3VLChat? A model behind an API is asked by "
        "the address of an OpenAI-compatible endpoint: --vlm-api-base, in a task file "
        "name: CustomAPIModel with type and api_base."
    )
    right = {"model": {"m": {"class": "Qwen2VLChat"}}, "data": {"MME": {}}}
    settings = load(right, name="c.json")
    order, *_ = order_of("m", _with_python(settings, sandbox_environment.python))
    assert order["class_name"] == "Qwen2VLChat"
    url = "http://127.0.0.1:9/v1"
    model = {"name": "CustomAPIModel", "type": "m", "api_base": url}
    settings = load({"eval_backend": "VLMEvalKit", "eval_config": {"model": [model]}})
    assert (settings.backend, settings.api_bases) == ("endpoint", (url,))
    settings = load({"data": {"MME": {}}}, f"--vlm-api-base={url}", "--vlm-model=m")
    assert (settings.backend, settings.api_bases) == ("endpoint", (url,))


@pytest.mark.parametrize(
    ("given", "name", "base", "key"),
    [
        (
            {"LOCAL_LLM": "q", "OPENAI_API_BASE": "http://j/v1"},
            "q",
            "http://j/v1",
            None,
        ),
        (
            {"judge": "gpt-4o", "LOCAL_LLM": "q", "OPENAI_API_BASE": "http://j/v1"},
            "q",
            "http://j/v1",
            None,
        ),
        (
            {"judge": "gpt-4o", "OPENAI_API_KEY": "sk-3"},
            "gpt-4o",
            "https://api.openai.com/v1",
            "sk-3",
        ),
        (
            {"judge": "j", "judge_base_url": "http://a/v1", "judge_key": "EMPTY"},
            "j",
            "http://a/v1",
            None,
        ),
    ],
)
def test_the_judge(
    load: Load, given: dict[str, Any], name: str, base: str, key: str | None
) -> None:
    (judge,) = load(swift_task(**given), environ={"LOCAL_LLM": "other"}).judges
    assert (judge.name, judge.api_bases, judge.api_key) == (name, (base,), key)


def test_exact_matching_is_no_judge(load: Load) -> None:
    task = swift_task(judge="exact_matching", LOCAL_LLM="q")
    settings = load(task, environ={"LOCAL_LLM": "other"})
    assert settings.judges == ()
    (remark,) = settings.remarks
    assert remark.endswith(
        "task.yaml: eval_config.LOCAL_LLM has no effect here: there is no judge: "
        "answers are matched exactly"
    )


@pytest.mark.parametrize(
    ("given", "data", "nframe", "fps"),
    [
        ({"nframe": 16, "fps": -1}, "Video-MME", 16, None),
        ({"fps": 0.5}, "Video-MME", None, 0.5),
        ({"use_subtitle": True}, "Video-MME_8frame_subs", None, None),
        ({"use_subtitle": True, "fps": 0.5}, "Video-MME_0.5fps_subs", None, None),
    ],
)
def test_how_videos_are_shown(
    load: Load, given: dict[str, Any], data: str, nframe: int | None, fps: float | None
) -> None:
    settings = load(swift_task(data=["Video-MME"], **given))
    assert (settings.data, settings.nframe, settings.fps) == ((data,), nframe, fps)


def test_reuse_false_starts_over(load: Load) -> None:
    assert load(swift_task(reuse=False)).fresh
    assert load(swift_task(reuse=None, rerun=True)).fresh
    assert not load(swift_task(reuse=False), "-o", "vlm_fresh=no").fresh


def test_fields_of_a_known_name_take_what_they_read_elsewhere(tmp_path: Path) -> None:
    task = read_task(tmp_path, swift_task(api_nproc=9, nproc=5, temperature=0.5))
    assert task.values["concurrency"].text == "5"
    assert [remark.split(": ", 1)[1] for remark in task.remarks] == [
        "eval_config.api_nproc has no effect here: eval_config.nproc says it already",
        "eval_config.temperature has no effect here: it belongs to base_url",
    ]


def test_an_eval_config_in_a_file_of_its_own(tmp_path: Path) -> None:
    write_task(tmp_path / "inner.json", {"model": [SERVED], "data": "MME"})
    task = read_task(
        tmp_path, {"eval_backend": "VLMEvalKit", "eval_config": "inner.json"}
    )
    assert task.values["data"].text == "MME"
    text = json.dumps({"model": [SERVED], "data": ["POPE"]})
    task = read_task(tmp_path, {"eval_backend": "VLMEvalKit", "eval_config": text})
    assert task.values["data"].text == "POPE"


def test_arguments_keep_commas_in_quotes() -> None:
    assert parse_arguments("a=1, b='x, y' c=True") == {"a": 1, "b": "x, y", "c": True}
