"""Task files that cannot be used: one message each, with file and field, never more."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.sources import BY_NAME, Given, Sources
from pytest_vlmeval.settings.task_fields import (
    ApiModel,
    EvalConfig,
    EvalScopeTask,
    read_tree,
)
from pytest_vlmeval.settings.task_file import (
    Task,
    load_mapping,
    load_task,
    write_mapping,
)
from tests.support.option_calls import Load
from tests.support.option_calls import load as load
from tests.support.task_files import LOCAL, SERVED, read_task, swift_task, write_task

CANARY = "sk-canary-4d1f"
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
            "eval_config.limitt is no field that is known here. Did you mean limit? "
            f"Known are: {', '.join(EvalConfig.model_fields)}.",
        ),
        (
            swift_task(top={"wrkdir": "x"}),
            "wrkdir is no field that is known here. Did you mean work_dir? Known are: "
            f"{', '.join(EvalScopeTask.model_fields)}.",
        ),
        (
            swift_task(model={"img_sizes": 3}),
            "eval_config.model[0].img_sizes is no field that is known here. Did you "
            f"mean img_size? Known are: {', '.join(ApiModel.model_fields)}.",
        ),
        (
            swift_task(model={"api_key": CANARY}),
            "eval_config.model[0].api_key is not accepted, as it looks like a key: the "
            "model's stands in key, or in VLM_API_KEY.",
        ),
        (
            swift_task(model={"extra_headers": {"Authorization": CANARY}}),
            "eval_config.model[0].extra_headers is not accepted, as its Authorization "
            "looks like a key, and what goes into requests stands in reports: give "
            "headers with --vlm-api-header-file.",
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
            "looks like a number).",
        ),
        (
            swift_task(judge=3),
            "eval_config.judge is a number, and takes a text (in quotes, if it looks "
            "like a number).",
        ),
        (
            swift_task(model={"video_llm": "no"}),
            "eval_config.model[0].video_llm is a text, and takes true or false.",
        ),
        (swift_task(data=[]), "eval_config.data is empty: name a dataset."),
        (
            swift_task(data=["MME", 3]),
            "eval_config.data[1] = 3 is not a dataset's name. `pytest --vlm-list` "
            "shows them all.",
        ),
        (
            swift_task(model={"api_base": None}),
            "eval_config.model[0].api_base is missing: give the URL of the endpoint "
            "that serves the model, such as http://127.0.0.1:8000/v1/chat/completions.",
        ),
        (
            swift_task(model={"type": None}),
            "eval_config.model[0].type is missing: it is the name under which the "
            "model is served.",
        ),
        (
            swift_task(model={"name": None}),
            "eval_config.model[0].name is missing: it is CustomAPIModel for a model "
            "that is served, and a name of `pytest --vlm-list-models` for one that is "
            "loaded here.",
        ),
        (
            {"eval_backend": "VLMEvalKit", "eval_config": {"model": [7]}},
            "eval_config.model[0] = 7 is not a model: give a name of ms-vlmeval's, or "
            "a mapping with name: CustomAPIModel, type and api_base, or with name and "
            "model_path.",
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
            "of a local model are texts, numbers, true or false.",
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
            "eval_config.use_subtitle = true is not supported with 16frame: subtitles "
            "are shown by the presets Video-MME_8frame_subs and Video-MME_0.5fps_subs. "
            "Give nframe: 8 or fps: 0.5.",
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
            "data.b shows videos by fps = 1, and another dataset by nframe = 8: "
            "a run has one way for all. Make it two files, or name presets, such as "
            "Video-MME_64frame.",
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
        ("t.yaml", b"a: &a [*a]", "the value in line 1 is part of itself."),
        ("t.yaml", YAML_BOMB, "with its aliases it has over 20,000 values."),
        ("t.yaml", MERGE_BOMB, "with its aliases it has over 20,000 values."),
        ("t.yaml", b"a: " + b"[" * 90_000, "its values are nested more than 50 deep."),
        ("t.yaml", b"a: " + b"x" * 200_000, "a task file has at most 200,000 bytes."),
        ("t.yaml", b"a: \xff", "it is not a text in UTF-8."),
        ("t.json", b"{", "line 1, column 2 is not JSON (Expecting property name"),
        ("t.json", b'{"a": 1, "a": 2}', "'a' stands twice in the same mapping."),
        ("t.json", b'{"a": NaN}', "NaN is no value of JSON."),
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
        for wrong in (CANARY, [CANARY], {"a": CANARY}, {"x y": [CANARY]}, f"{CANARY}@"):
            task = copy.deepcopy(WHOLE)
            if not place or place in NAMES:
                continue
            parent: Any = task
            for name in place[:-1]:
                parent = parent[name]
            parent[place[-1]] = wrong
            for given in (True, False):
                try:
                    text = json.dumps(task)
                    if given:
                        path = write_task(tmp_path / "task.json", task)
                        read = load_task(path, None, tmp_path)
                    else:
                        read = load_mapping(text, None, tmp_path)
                    _read_options(read, tmp_path)
                except VlmEvalError as error:
                    errors.append(str(error))
                else:
                    said += [*read.remarks, *(it.shown for it in read.values.values())]
    assert not [line for line in errors + said if CANARY in line]
    # Most of them are mistakes.
    assert len(errors) > 100


def _read_options(task: Task, folder: Path) -> None:
    """Parse what a task says, as a run does."""
    sources = Sources(
        command=lambda option: None,
        ini={},
        variables={},
        folder=folder,
        root=folder,
    )
    for name, value in task.values.items():
        given = Given(value.text, "task", value.shown)
        sources.parse(BY_NAME[name], given)


def test_a_task_as_a_dict(tmp_path: Path) -> None:
    """The same task, whether it stands in a file or is a dict of Python."""
    task = swift_task(work_dir=Path("out"), data=("MME", "MMStar"))
    said = load_mapping(write_mapping(task), None, tmp_path)
    listed = swift_task(work_dir="out", data=["MME", "MMStar"])
    path = write_task(tmp_path / "task.yaml", listed)
    read = load_task(path, None, tmp_path)
    assert {name: it.text for name, it in said.values.items()} == {
        name: it.text for name, it in read.values.items()
    }
    assert said.path == "config"
    mapping = {"model": {"m": {"class": "GPT4V"}}, "data": {"MME": {}}}
    vlmevalkit = load_mapping(write_mapping(mapping), None, tmp_path)
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
            "config cannot be used: as JSON it has more than 200,000 characters.",
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
        load_mapping(write_mapping(task), None, tmp_path)
    assert str(caught.value) == said


def test_no_traceback_shows_a_key_of_a_task(tmp_path: Path) -> None:
    """Pytest's -l prints the variables of each function; so may a bug of ours."""
    task = swift_task(model={"key": CANARY}, judge_key=CANARY)
    tree = read_tree(write_task(tmp_path / "task.yaml", task))
    assert CANARY not in repr(tree)
    assert tree["eval_config"]["judge_key"] == CANARY
    assert CANARY not in repr(write_mapping(task))
