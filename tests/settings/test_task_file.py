"""Task files of EvalScope and VLMEvalKit: what each field becomes, and mistakes."""

from __future__ import annotations

import copy
import hashlib
import json
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.local import order_of
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.settings import Settings, load_from
from pytest_vlmeval.settings.groups import parse_arguments
from pytest_vlmeval.settings.sources import Sources, pytest_sources
from pytest_vlmeval.settings.table import BY_NAME
from pytest_vlmeval.settings.task_fields import (
    API_MODEL,
    EVAL_CONFIG,
    EVALSCOPE,
    LOCAL_MODEL,
)
from pytest_vlmeval.settings.task_file import Task, load_task, read_tree
from tests.support.option_calls import Load
from tests.support.option_calls import load as load
from tests.support.task_files import LOCAL, SERVED, read_task, swift_task, write_task

SettingsOf = Callable[..., Settings]


@pytest.fixture
def settings_of(pytester: pytest.Pytester) -> SettingsOf:
    """Return what loads the settings of a task, with options beside it."""

    def settings_of(
        task: object,
        *arguments: str,
        ini: str = "",
        environ: dict[str, str] | None = None,
        name: str = "task.yaml",
    ) -> Settings:
        write_task(pytester.path / name, task)
        pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n{ini}")
        config = pytester.parseconfig(f"--vlm-config={name}", *arguments)
        return load_from(
            pytest_sources(config, {"HOME": "/nowhere", **(environ or {})})
        )

    return settings_of


@pytest.mark.parametrize("name", ["task.yaml", "task.yml", "task.json"])
def test_a_task_for_a_served_model(
    settings_of: SettingsOf, pytester: pytest.Pytester, name: str
) -> None:
    task = swift_task(
        top={"work_dir": "outputs"},
        model={"key": "sk-1", "retry": 3, "timeout": 60, "top_p": 0.9},
        mode="eval",
        judge="qwen3",
        judge_base_url="http://127.0.0.1:8866/v1",
        judge_key="sk-2",
    )
    settings = settings_of(task, name=name)
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
    settings_of: SettingsOf, sandbox_environment: SandboxEnvironment
) -> None:
    model = {**LOCAL, "max_new_tokens": 1024, "prompt": "it's, 'so'", "n_layers": 2}
    settings = settings_of(
        swift_task() | {"eval_config": {"model": [model], "data": ["MME"]}}
    )
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


def test_names_alone_are_local_models_or_served_at_base_url(
    settings_of: SettingsOf,
) -> None:
    config: dict[str, Any] = {"model": ["qwen_chat"], "data": ["MME"]}
    task = {"eval_backend": "VLMEvalKit", "eval_config": config}
    assert settings_of(task).backend == "local"
    config |= {"base_url": "http://h:1/v1", "key": "k", "top_k": 4, "video_llm": True}
    config |= {"extra_body": '{"min_p": 0.1}', "temperature": 0.5}
    settings = settings_of(task)
    assert (settings.model, settings.backend) == ("qwen_chat", "endpoint")
    assert settings.api_bases == ("http://h:1/v1",)
    assert settings.api_key == "k"
    assert json.loads(settings.prompting.extra_body) == {"top_k": 4, "min_p": 0.1}
    assert settings.video_url
    # What ms-vlmeval takes there where nothing is said.
    assert (settings.temperature, settings.max_tokens) == (0.5, 2**15)
    assert settings.timeout_s == 1800
    assert settings_of(task, environ={"VLM_MAX_TOKENS": "9"}).max_tokens == 9


def test_a_configuration_of_vlmevalkit(
    settings_of: SettingsOf, sandbox_environment: SandboxEnvironment
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
    cold = settings_of(task, "--vlm-model=cold", name="c.json")
    assert (cold.model, cold.api_bases) == ("m", ("http://h/v1",))
    assert (cold.temperature, cold.prompting.image_detail) == (0, "low")
    assert cold.data == ("MMBench_DEV_EN_V11", "Video-MME_64frame", "Video-MME")
    assert cold.nframe == 16
    assert cold.classes == {
        "MMBench_DEV_EN_V11": "ImageMCQDataset",
        "Video-MME": "VideoMME",
    }
    warm = settings_of(task, "--vlm-model=warm", name="c.json")
    assert (warm.model, warm.temperature) == ("m", 1)
    assert warm.api_bases == ("https://api.openai.com/v1",)
    assert warm.prompting.image_detail == "high"
    mine = settings_of(task, "--vlm-model=mine", name="c.json")
    assert (mine.model, mine.backend, mine.local.path) == ("mine", "local", "weights")
    order, _, _ = order_of("mine", _with_python(mine, sandbox_environment.python))
    assert (order["class_name"], order["module"]) == ("QwenVLChat", "qwen_vl")
    shortcut = settings_of(task, "--vlm-model=Qwen2-VL-2B-Instruct", name="c.json")
    assert (shortcut.model, shortcut.backend) == ("Qwen2-VL-2B-Instruct", "local")


def test_gpt4v_is_openai_s_where_no_address_is_given(settings_of: SettingsOf) -> None:
    task = {"model": {"a": {"class": "GPT4V", "model": "gpt-4o"}}, "data": {"MME": {}}}
    assert settings_of(task, name="c.json").api_bases == ("https://api.openai.com/v1",)
    mine = settings_of(task, name="c.json", environ={"VLM_API_BASE": "http://h/v1"})
    assert (mine.api_bases, mine.remarks) == (("http://h/v1",), ())


def test_a_class_that_is_not_there(
    settings_of: SettingsOf, sandbox_environment: SandboxEnvironment
) -> None:
    task = {"model": {"m": {"class": "Qwen2VLChatt"}}, "data": {"MME": {}}}
    settings = settings_of(task, name="c.json")
    with pytest.raises(VlmEvalError) as caught:
        order_of("m", _with_python(settings, sandbox_environment.python))
    assert str(caught.value) == (
        "ms-vlmeval has no class 'Qwen2VLChatt' that loads a model. Did you mean "
        "Qwen2VLChat or QwenVLChat or Qwen3VLChat? A model behind an API is asked by "
        "the address of an OpenAI-compatible endpoint: --vlm-api-base, in a task file "
        "name: CustomAPIModel with type and api_base."
    )
    right = {"model": {"m": {"class": "Qwen2VLChat"}}, "data": {"MME": {}}}
    settings = settings_of(right, name="c.json")
    order, *_ = order_of("m", _with_python(settings, sandbox_environment.python))
    assert order["class_name"] == "Qwen2VLChat"
    url = "http://127.0.0.1:9/v1"
    model = {"name": "CustomAPIModel", "type": "m", "api_base": url}
    settings = settings_of(
        {"eval_backend": "VLMEvalKit", "eval_config": {"model": [model]}}
    )
    assert (settings.backend, settings.api_bases) == ("endpoint", (url,))
    settings = settings_of(
        {"data": {"MME": {}}}, f"--vlm-api-base={url}", "--vlm-model=m"
    )
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
    settings_of: SettingsOf,
    given: dict[str, Any],
    name: str,
    base: str,
    key: str | None,
) -> None:
    (judge,) = settings_of(swift_task(**given), environ={"LOCAL_LLM": "other"}).judges
    assert (judge.name, judge.api_bases, judge.api_key) == (name, (base,), key)


def test_exact_matching_is_no_judge(settings_of: SettingsOf) -> None:
    task = swift_task(judge="exact_matching", LOCAL_LLM="q")
    settings = settings_of(task, environ={"LOCAL_LLM": "other"})
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
    settings_of: SettingsOf,
    given: dict[str, Any],
    data: str,
    nframe: int | None,
    fps: float | None,
) -> None:
    settings = settings_of(swift_task(data=["Video-MME"], **given))
    assert (settings.data, settings.nframe, settings.fps) == ((data,), nframe, fps)


def test_reuse_false_starts_over(settings_of: SettingsOf) -> None:
    assert settings_of(swift_task(reuse=False)).fresh
    assert settings_of(swift_task(reuse=None, rerun=True)).fresh
    assert not settings_of(swift_task(reuse=False), "-o", "vlm_fresh=no").fresh


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


CANARY = "sk-canary-4d1f"
NUMBER = 907_318_264_551
AS_API = " eval_config.model[0] is a CustomAPIModel, which an endpoint serves."
AS_LOCAL = (
    " eval_config.model[0] is a model that is loaded here, as its name is none of "
    "CustomAPIModel, GPT4V, OpenAIWrapper, LMDeployAPI."
)
SEVERAL = swift_task()["eval_config"] | {
    "model": [SERVED, {**SERVED, "type": "other model"}]
}


def message(folder: Path, task: object, name: str = "task.yaml") -> str:
    """Return what is said of a task, without the folder."""
    path = folder / name
    if isinstance(task, bytes):
        path.write_bytes(task)
    else:
        write_task(path, task)
    with pytest.raises(VlmEvalError) as caught:
        load_task(path, None, folder)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            swift_task(top={"eval_backend": "Native"}),
            "eval_backend (a text) is not supported: only the tasks of the backend "
            "VLMEvalKit run here.",
        ),
        (
            swift_task(limitt=3),
            "Unknown field eval_config.limitt. Did you mean limit? "
            f"Known are: {', '.join(EVAL_CONFIG)}.",
        ),
        (
            swift_task(top={"wrkdir": "x"}),
            "Unknown field wrkdir. Did you mean work_dir? Known are: "
            f"{', '.join(EVALSCOPE)}.",
        ),
        (
            swift_task(model={"img_sizes": 3}),
            "Unknown field eval_config.model[0].img_sizes. Did you "
            f"mean img_size? Known are: {', '.join(API_MODEL)}.{AS_API}",
        ),
        (
            swift_task(model={"api_key": CANARY}),
            "eval_config.model[0].api_key is not accepted, as it looks like a key: the "
            f"model's stands in key, or in VLM_API_KEY.{AS_API}",
        ),
        (
            swift_task(model={"extra_headers": {"Authorization": CANARY}}),
            "eval_config.model[0].extra_headers is not accepted, as its Authorization "
            "looks like a key, and what goes into requests stands in reports: give "
            f"headers with --vlm-api-header-file.{AS_API}",
        ),
        (
            swift_task(limit=[3]),
            "eval_config.limit is a list, and takes a number.",
        ),
        (
            swift_task(limit=True),
            "eval_config.limit is true or false, and takes a number.",
        ),
        (
            swift_task(model={"key": 12345}),
            "eval_config.model[0].key is a number, and takes a text (in quotes, if it "
            f"looks like a number).{AS_API}",
        ),
        (
            swift_task(judge=3),
            "eval_config.judge is a number, and takes a text (in quotes, if it looks "
            "like a number).",
        ),
        (
            swift_task(model={"video_llm": "no"}),
            "eval_config.model[0].video_llm is a text, and takes true or false."
            f"{AS_API}",
        ),
        (swift_task(data=[]), "eval_config.data is empty: name a dataset."),
        (
            swift_task(data=["MME", 3]),
            "eval_config.data[1] (a number) is not a dataset's name. `pytest "
            "--vlm-list` shows them all.",
        ),
        (
            swift_task(model={"api_base": None}),
            "eval_config.model[0].api_base is missing: give the URL of the endpoint "
            "that serves the model, such as http://127.0.0.1:8000/v1/chat/completions."
            f"{AS_API}",
        ),
        (
            swift_task(model={"type": None}),
            "eval_config.model[0].type is missing: it is the name under which the "
            "CustomAPIModel is served.",
        ),
        (
            swift_task(model={"name": None}),
            "eval_config.model[0].name is missing: it is CustomAPIModel for a model "
            "that is served, and a name of `pytest --vlm-list-models` for one that is "
            "loaded here.",
        ),
        (
            {"eval_backend": "VLMEvalKit", "eval_config": {"model": [7]}},
            "eval_config.model[0] (a number) is not a model: give a name of "
            "ms-vlmeval's, or a mapping with name: CustomAPIModel, type and api_base, "
            "or with name and model_path.",
        ),
        (
            {"eval_backend": "VLMEvalKit", "eval_config": {"model": {"a": 1}}},
            "eval_config.model is a mapping, and takes a list.",
        ),
        (
            {
                "eval_backend": "VLMEvalKit",
                "eval_config": {"model": [{**LOCAL, "device_map": {"a": 1}}]},
            },
            "eval_config.model[0].device_map (a mapping) is not supported: arguments "
            f"of a local model are texts, numbers, true or false.{AS_LOCAL}",
        ),
        (
            {"eval_backend": "VLMEvalKit", "eval_config": [1]},
            "eval_config is a list, and takes a mapping with model, data and further "
            "fields, or the path of a .yaml or .json file that holds one.",
        ),
        (
            swift_task(use_verifier=True),
            "eval_config.use_verifier = true is not supported: the verifier is a model "
            "that ms-vlmeval loads while it scores. Leave it out.",
        ),
        (
            swift_task(data=["Video-MME"], nframe=16, use_subtitle=True),
            "eval_config.use_subtitle = true is not supported with this nframe: "
            "subtitles are shown by the presets Video-MME_8frame_subs and "
            "Video-MME_0.5fps_subs. Give nframe: 8 or fps: 0.5.",
        ),
        (
            {"eval_backend": "VLMEvalKit", "eval_config": SEVERAL},
            "model names 2 models, and a session evaluates one, so that each has its "
            "own report and exit code. Choose it: --vlm-model=qwen-vl-chat. All of "
            "them: for model in qwen-vl-chat 'other model'; do pytest "
            '--vlm-config=task.yaml --vlm-model="$model"; done',
        ),
        (
            {"model": {}, "data": {"a": {"nframe": 8}, "b": {"fps": 1}}},
            "data.b shows videos by fps, and data.a by nframe: "
            "a run has one way for all. Make it two files, or name presets, such as "
            "Video-MME_64frame.",
        ),
        (
            {"data": {"a": {"nframe": 8}, "b": {"nframe": 16}}},
            "data.b shows videos by nframe, and data.a by another nframe: a run has "
            "one way for all. Make it two files, or name presets, such as "
            "Video-MME_64frame.",
        ),
        (
            swift_task(model={"name": "CustomApiModell"}),
            "eval_config.model[0].name is not the class of a model that an endpoint "
            "serves, and api_base is for these. Did you mean CustomAPIModel? Accepted "
            "are CustomAPIModel, GPT4V, OpenAIWrapper, LMDeployAPI. For a model that "
            "is loaded here, leave api_base out.",
        ),
        (
            {"model": {"m": {"class": "GPT4", "api_base": "x"}}, "data": {"MME": {}}},
            "model.m.class is not the class of a model that an endpoint serves, and "
            "api_base is for these. Did you mean GPT4V? Accepted are CustomAPIModel, "
            "GPT4V, OpenAIWrapper, LMDeployAPI. For a model that is loaded here, leave "
            "api_base out.",
        ),
        (
            {"model": {"m": {"class": "QwenVLChat", "temperature": []}}, "data": {}},
            "data is empty: name a dataset.",
        ),
        (
            {"model": {"m": {"class": "QwenVLChat", "temperature": []}}},
            "model.m.temperature is a list, and takes a number. model.m is a model "
            "that is loaded here, as its class is none of CustomAPIModel, GPT4V, "
            "OpenAIWrapper, LMDeployAPI.",
        ),
        (
            {"data": ["MME"]},
            "its top level is neither a task of EvalScope (eval_backend and "
            "eval_config) nor a configuration of VLMEvalKit (model and data, each a "
            "mapping of names).",
        ),
    ],
)
def test_what_is_wrong_with_a_task(tmp_path: Path, task: object, said: str) -> None:
    text = message(tmp_path, task)
    assert text == f"task.yaml: {said}"
    assert CANARY not in text


YAML_BOMB = b"a: &a [x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (each, each, b",".join([b"*%c" % (each - 1)] * 9))
    for each in range(ord("b"), ord("i"))
)
MERGE_BOMB = b"a: &a {x: 1}\n" + b"".join(
    b"%c: &%c {<<: [%s]}\n" % (each, each, b",".join([b"*%c" % (each - 1)] * 9))
    for each in range(ord("b"), ord("i"))
)
LARGE_MERGE = b"a: &a {%s}\nb: {<<: [%s]}" % (
    b",".join(b"n%d: 1" % each for each in range(900)),
    b",".join([b"*a"] * 900),
)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.yaml", b"", "its top level is empty, and it takes a mapping: a task of"),
        ("t.yaml", b"- 1", "its top level is a list, and it takes a mapping: a task"),
        ("t.yaml", b"a: 1\n b: 2", "line 2, column 3 is not YAML (mapping values are"),
        (
            "t.yaml",
            f"key: *{CANARY}".encode(),
            "line 1, column 6 is not YAML (found undefined alias …).",
        ),
        ("t.yaml", f"key: !{CANARY} x".encode(), "line 1, column 6 is not YAML (could"),
        ("t.yaml", b"a: \x00", "it holds a character that YAML does not know."),
        ("t.yaml", b"a: 2026-99-99", "it holds a date or a number that does not exist"),
        ("t.yaml", b"a: 1\na: 2", "'a' stands twice in the mapping of line 1."),
        ("t.yaml", b"1: x", "line 1 has a name that is not a text."),
        (
            "t.yaml",
            b"a: &a [*a]",
            "line 1, column 4 is not YAML (found unconstructable",
        ),
        ("t.yaml", YAML_BOMB, "with its aliases it has over 200,000 values and char"),
        ("t.yaml", LARGE_MERGE, "with its aliases it has over 200,000 values and char"),
        ("t.yaml", b"a: " + b"[" * 90_000, "its values are nested more than 50 deep."),
        ("t.yaml", b"a: " + b"x" * 200_000, "a task file has at most 200,000 bytes."),
        ("t.yaml", b"a: \xff", "it is not a text in UTF-8."),
        ("t.json", b"{", "line 1, column 2 is not JSON (Expecting property name"),
        ("t.json", b'{"a": 1, "a": 2}', "'a' stands twice in the same mapping."),
        ("t.json", b'{"a": ' + b"9" * 9000 + b"}", "it has a number of thousands of"),
        ("t.json", b'{"a": ' + b"[" * 90_000, "its values are nested more than 50"),
    ],
)
def test_what_is_wrong_with_a_file(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    text = message(tmp_path, content, name)
    assert text.startswith(f"{name} cannot be used: {said}")
    assert CANARY not in text


def test_merged_mappings_do_not_grow(tmp_path: Path) -> None:
    said = message(tmp_path, MERGE_BOMB)
    assert said.startswith("task.yaml: its top level is neither a task of EvalScope")
    assert read_tree(tmp_path / "task.yaml")["h"] == {"x": 1}
    (tmp_path / "m.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}")
    assert read_tree(tmp_path / "m.yaml")["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("t.json", b'{"a": NaN}', "a number that is not finite"),
        ("t.yaml", b"a: .inf", "a number that is not finite"),
        ("t.yaml", b"a: 2026-01-02", "of the type date"),
    ],
)
def test_values_that_no_option_has(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    assert message(tmp_path, content, name) == (
        f"{name}: a is {kind}, and takes what a task file can hold: texts, numbers, "
        "true or false, lists and mappings."
    )


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, said in (
        (
            "task.toml",
            "--vlm-config=task.toml is not a task file by its name. Give one",
        ),
        ("none.yaml", "--vlm-config=none.yaml cannot be read (No such file or directo"),
        ("a\0.yaml", "--vlm-config=a\\x00.yaml cannot be read (embedded null byte). G"),
    ):
        with pytest.raises(VlmEvalError) as caught:
            load_task(tmp_path / name, None, tmp_path)
        assert str(caught.value).replace(f"{tmp_path}/", "").startswith(said)


def test_what_refusals_of_a_task_advise_is_accepted(tmp_path: Path, load: Load) -> None:
    """Another name of the file, keys where they belong, headers in a file."""
    for name in ("task.yaml", "task.yml", "task.json"):
        assert read_task(tmp_path, swift_task(), name).values
    (tmp_path / "task.json").rename(tmp_path / "task.toml")
    with pytest.raises(VlmEvalError, match=r"Give one that ends in \.yaml, \.yml or "):
        load_task(tmp_path / "task.toml", None, tmp_path)
    config = f"--vlm-config={write_task(tmp_path / 'task.yaml', swift_task())}"
    assert load(config, environ={"VLM_API_KEY": CANARY}).api_key == CANARY
    with_key = write_task(tmp_path / "key.yaml", swift_task(model={"key": CANARY}))
    assert load(f"--vlm-config={with_key}").api_key == CANARY
    headers = tmp_path / "headers"
    headers.write_text(f"Authorization: {CANARY}\n")
    settings = load(config, f"--vlm-api-header-file={headers}")
    assert dict(settings.form.headers)["Authorization"] == CANARY


def test_a_model_that_is_none_of_several(tmp_path: Path) -> None:
    task = {"eval_backend": "VLMEvalKit", "eval_config": SEVERAL}
    path = write_task(tmp_path / "task.yaml", task)
    assert (
        load_task(path, "other model", tmp_path).values["model"].text == "other model"
    )
    with pytest.raises(VlmEvalError) as caught:
        load_task(path, "third", tmp_path)
    assert str(caught.value) == (
        f"{path}: model: --vlm-model=third is none of the 2 models there: "
        "qwen-vl-chat, other model. Give one of these."
    )


def _places(
    task: object, place: tuple[object, ...] = ()
) -> Iterator[tuple[object, ...]]:
    """Give the way to every value of a task, lists and mappings too."""
    yield place
    if isinstance(task, dict | list):
        entries = task.items() if isinstance(task, dict) else enumerate(task)
        for name, each in entries:
            yield from _places(each, (*place, name))


WHOLE = swift_task(
    judge="judge",
    judge_base_url="http://127.0.0.1:8001/v1",
    judge_key="EMPTY",
    base_url=None,
    nframe=8,
    fps=-1,
    use_subtitle=False,
    retry=3,
    verbose=True,
)
# What stands for the run's own names is said wherever they are asked for.
NAMES = {("eval_config", "data", 0), ("eval_config", "model", 0, "type")}


def test_no_value_is_in_any_message(tmp_path: Path) -> None:
    """A key may stand anywhere by mistake: as a value, in a list, in a mapping."""
    errors: list[str] = []
    said: list[str] = []
    for place in _places(WHOLE):
        texts = (CANARY, [CANARY], {"a": CANARY}, {"x y": [CANARY]}, f"{CANARY}@")
        for wrong in (*texts, NUMBER, -NUMBER, [NUMBER]):
            task = copy.deepcopy(WHOLE)
            if not place or place in NAMES:
                continue
            parent: Any = task
            for name in place[:-1]:
                parent = parent[name]
            parent[place[-1]] = wrong
            for in_file in (True, False):
                try:
                    path = write_task(tmp_path / "task.json", task)
                    read = load_task(path if in_file else task, None, tmp_path)
                    _read_options(read, tmp_path)
                except VlmEvalError as error:
                    errors.append(str(error))
                else:
                    said += [*read.remarks, *(it.shown for it in read.values.values())]
    assert not [line for line in errors + said if CANARY in line or str(NUMBER) in line]
    # Most of them are mistakes.
    assert len(errors) > 100


def _read_options(task: Task, folder: Path) -> None:
    """Parse what a task says, as a run does."""
    sources = Sources(
        command={},
        ini={},
        variables={},
        folder=folder,
        root=folder,
    )
    for name, value in task.values.items():
        sources.parse(BY_NAME[name], value)


def test_a_task_as_a_dict(tmp_path: Path) -> None:
    """The same task, whether it stands in a file or is a dict of Python."""
    task = swift_task(work_dir=Path("out"), data=("MME", "MMStar"))
    said = load_task(task, None, tmp_path)
    listed = swift_task(work_dir="out", data=["MME", "MMStar"])
    path = write_task(tmp_path / "task.yaml", listed)
    read = load_task(path, None, tmp_path)
    assert {name: it.text for name, it in said.values.items()} == {
        name: it.text for name, it in read.values.items()
    }
    assert said.path == "config"
    mapping = {"model": {"m": {"class": "GPT4V"}}, "data": {"MME": {}}}
    vlmevalkit = load_task(mapping, None, tmp_path)
    assert vlmevalkit.values["data"].text == "MME"


class Secret:
    """What its own repr would show."""

    def __repr__(self) -> str:
        return CANARY


LOOP: dict[str, Any] = {"key": CANARY}
LOOP["self"] = LOOP


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            swift_task(limit=Secret()),
            "config: eval_config.limit is of the type Secret, and takes what a task "
            "file can hold: texts, numbers, true or false, lists and mappings.",
        ),
        (
            swift_task(model={"key": Secret()}),
            "config: eval_config.model[0].key is of the type Secret, and takes what a "
            "task file can hold: texts, numbers, true or false, lists and mappings.",
        ),
        (
            swift_task(limit=float("nan")),
            "config: eval_config.limit is a number that is not finite, and takes what "
            "a task file can hold: texts, numbers, true or false, lists and mappings.",
        ),
        (
            swift_task(model={Secret(): 1}),  # type: ignore[dict-item]
            "config: eval_config.model[0] has a name of the type Secret, and names are "
            "texts.",
        ),
        (LOOP, "config cannot be used: its values are nested more than 50 deep."),
        (
            {"model": CANARY * 20_000},
            "config cannot be used: with its aliases it has over 200,000 values and "
            "characters.",
        ),
        (
            swift_task(limit=[CANARY]),
            "config: eval_config.limit is a list, and takes a number.",
        ),
        (
            {"eval_backend": "VLMEvalKit", "eval_config": SEVERAL},
            "config: model names 2 models, and a call evaluates one. Choose it: "
            "model='qwen-vl-chat'. There are: qwen-vl-chat, other model.",
        ),
        (
            {"data": ["MME"]},
            "config: its top level is neither a task of EvalScope (eval_backend and "
            "eval_config) nor a configuration of VLMEvalKit (model and data, each a "
            "mapping of names).",
        ),
    ],
)
def test_what_is_wrong_with_a_dict(
    tmp_path: Path, task: dict[str, Any], said: str
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        load_task(task, None, tmp_path)
    assert str(caught.value) == said


def test_no_traceback_shows_a_key_of_a_task(tmp_path: Path) -> None:
    """Pytest's -l prints the variables of each function; so may a bug of ours."""
    task = swift_task(model={"key": CANARY}, judge_key=CANARY)
    tree = read_tree(write_task(tmp_path / "task.yaml", task))
    assert CANARY not in repr(tree)
    assert tree["eval_config"]["judge_key"] == CANARY
    assert CANARY not in repr(read_tree(task))


FUZZED_NAMES = st.sampled_from(
    sorted({*EVALSCOPE, *EVAL_CONFIG})
    + sorted({*API_MODEL, *LOCAL_MODEL, "class", "dataset"})
) | st.text(string.printable, max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["CustomAPIModel", "VLMEvalKit", "MME", "http://h/v1", "EMPTY"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(FUZZED_NAMES, inner, max_size=4)
    ),
    max_leaves=12,
)
TASKS = st.one_of(
    VALUES,
    st.builds(
        lambda config: {"eval_backend": "VLMEvalKit", "eval_config": config},
        st.dictionaries(FUZZED_NAMES, VALUES, max_size=6) | VALUES,
    ),
    st.builds(
        lambda model, more: swift_task(model=model, **more),
        st.dictionaries(FUZZED_NAMES, VALUES, max_size=3),
        st.dictionaries(
            FUZZED_NAMES.filter(lambda n: n not in ("model", "top")), VALUES
        ),
    ),
    st.fixed_dictionaries(
        {
            "model": st.dictionaries(st.text(max_size=5), VALUES, max_size=2),
            "data": st.dictionaries(st.text(max_size=5), VALUES, max_size=2),
        }
    ),
)


def check_task(folder: Path, name: str, content: bytes) -> None:
    """Read a file: what comes of it is a task or one error that names the file."""
    # A name of its own, as files may change within the resolution of the clock.
    path = folder / hashlib.sha256(content).hexdigest() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    try:
        task = load_task(path, None, folder)
    except VlmEvalError as error:
        said = str(error)
        if name not in said or len(said) > 3_000:
            raise AssertionError(said) from None
    else:
        assert isinstance(task, Task)
        assert set(task.values) <= set(BY_NAME)
        assert all(isinstance(value.text, str) for value in task.values.values())


@settings(max_examples=120, deadline=None)
@given(task=TASKS)
def test_any_values_are_a_task_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, task: object
) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = json.dumps(task, allow_nan=True).encode()
    check_task(folder, "fuzz.json", text)
    check_task(
        folder,
        "fuzz.yaml",
        yaml.dump(task, allow_unicode=True).encode("utf-8", "surrogatepass"),
    )


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_bytes_are_a_task_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = yaml.safe_dump(swift_task()).encode()
    at = data.draw(st.integers(0, len(whole)))
    middle = data.draw(st.binary(max_size=30))
    rest = data.draw(st.sampled_from([whole[at:], b"", whole[: at // 2]]))
    check_task(folder, "fuzz.yaml", whole[:at] + middle + rest)
    check_task(folder, "fuzz.json", json.dumps(swift_task()).encode()[:at] + middle)
