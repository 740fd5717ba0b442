"""Options: where a value may stand, what each is without one, and bad values."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.run.plan import identify
from pytest_vlmeval.settings import load_from
from pytest_vlmeval.settings.option import hide_keys
from pytest_vlmeval.settings.sources import call_sources, pytest_sources
from pytest_vlmeval.settings.table import BY_NAME, COMMANDS, OPTIONS
from tests.support.option_calls import Load
from tests.support.option_calls import load as load


def test_defaults(load: Load, pytester: pytest.Pytester) -> None:
    settings = load()
    assert settings.model is None
    assert settings.backend == "endpoint"
    assert settings.api_bases == ("http://127.0.0.1:8000/v1",)
    assert settings.limit is None
    assert settings.sample is None
    assert settings.seed == 0
    assert settings.scoring is None
    assert settings.data_mirror is None
    assert settings.download_max_gb == 20
    assert not settings.download_only
    assert settings.max_tokens == 2048
    assert settings.temperature == 0
    assert settings.mode == "all"
    assert not settings.fresh
    assert settings.work_dir == pytester.path / ".vlmeval"
    assert settings.data_root == Path.home() / "LMUData"


def test_command_line_wins_over_ini_over_environment(load: Load) -> None:
    ini = "vlm_limit = 2"
    environ = {"VLM_LIMIT": "3"}
    assert load("--vlm-limit=1", ini=ini, environ=environ).limit == 1
    assert load(ini=ini, environ=environ).limit == 2
    assert load(environ=environ).limit == 3


NATIVE = """
vlm_concurrency = 8
vlm_limit = 3
vlm_temperature = 0.5
vlm_timeout = 20
vlm_stop_early = true
vlm_model = "m"
vlm_judge = ["a", "b"]
vlm_judge_api_base = ["http://j"]
vlm_data = ["MMStar", "two words.tsv"]
"""
TEXTS = """
vlm_concurrency = "8"
vlm_limit = "3"
vlm_temperature = "0.5"
vlm_timeout = "20"
vlm_stop_early = "true"
vlm_model = "m"
vlm_judge = "a,b"
vlm_judge_api_base = "http://j"
vlm_data = "MMStar,'two words.tsv'"
"""


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", f"[tool.pytest]{NATIVE}"),
        ("pyproject.toml", f"[tool.pytest]{TEXTS}"),
        ("pyproject.toml", f"[tool.pytest.ini_options]{NATIVE}"),
        ("pyproject.toml", f"[tool.pytest.ini_options]{TEXTS}"),
        ("pytest.toml", f"[pytest]{NATIVE}"),
        ("pytest.ini", "[pytest]" + TEXTS.replace('"', "")),
    ],
    ids=["native", "native texts", "ini_options", "texts", "pytest.toml", "pytest.ini"],
)
def test_values_have_the_types_of_their_file(
    pytester: pytest.Pytester, file: str, text: str
) -> None:
    """In a TOML file a number is a number, and several names are a list."""
    pytester.path.joinpath(file).write_text(text, encoding="utf-8")
    pytester.path.joinpath("two words.tsv").touch()
    sources = (
        pytest_sources(pytester.parseconfig(), {}),
        call_sources({}, pytester.path, {}),
    )
    for settings in map(load_from, sources):
        assert (settings.concurrency, settings.limit) == (8, 3)
        assert (settings.temperature, settings.timeout_s) == (0.5, 20)
        assert settings.gates.stop_early
        assert settings.model == "m"
        assert [judge.name for judge in settings.judges] == ["a", "b"]
        assert settings.data == ("MMStar", str(pytester.path / "two words.tsv"))


def test_every_option_has_the_three_names() -> None:
    names = {(option.flag, option.ini, option.env) for option in OPTIONS}
    assert ("--vlm-max-tokens", "vlm_max_tokens", "VLM_MAX_TOKENS") in names
    assert all(
        flag.removeprefix("--").replace("-", "_") == ini == env.lower()
        for flag, ini, env in names
    )


# Their values are not settings as they are: several make one, or a file is read.
MADE = {
    *("config", "api-key-file", "max-tokens-name", "api-query", "api-header-file"),
    *("engine", "replicas", "judge", "judge-api-base", "judge-api-key-file"),
    *("judge-api-query", "judge-api-header-file", "judge-max-tokens-name"),
    *("judge-max-tokens", "judge-temperature", "judge-extra-body"),
}


def test_every_option_says_its_field(load: Load) -> None:
    settings = load()
    assert {option.name for option in OPTIONS if not option.field} == MADE
    for option in OPTIONS:
        if option.field:
            attrgetter(option.field)(settings)


def test_the_options_say_what_tells_runs_apart(load: Load) -> None:
    plain = {"model": None, "backend": "endpoint", "max_tokens": 2048}
    assert identify(load()) == {**plain, "temperature": 0.0, "images": "original"}
    other = load(
        "--vlm-model=m",
        "--vlm-preset=evalscope",
        "--vlm-temperature=none",
        "--vlm-image-size=512",
        '--vlm-extra-body={"top_k": 1}',
        "--vlm-concurrency=3",
    )
    assert identify(other) == {
        "model": "m",
        "backend": "endpoint",
        "preset": "evalscope",
        "images": "as-ms-vlmeval",
        "image_size": 512,
        "image_detail": "high",
        "extra_body": '{"top_k": 1}',
        "max_tokens": 2048,
        "temperature": None,
    }
    local = load("--vlm-model=m", "--vlm-backend=local", "--vlm-model-args=a=1 b=x")
    assert identify(local) == {
        "model": "m",
        "backend": "local",
        "max_tokens": 2048,
        "temperature": 0.0,
        "model_args": '{"a": 1, "b": "x"}',
    }


def test_dataset_names_may_be_repeated_and_listed(load: Load) -> None:
    settings = load("--vlm-data=A,B", "--vlm-data", "C")
    assert settings.data == ("A", "B", "C")


def test_demo_is_its_own_backend(load: Load) -> None:
    assert load("--vlm-model=demo").backend == "demo"
    assert load("--vlm-model=demo", "--vlm-backend=endpoint").backend == "endpoint"


def test_a_subset_and_its_scoring(load: Load) -> None:
    settings = load("--vlm-sample=50", "--vlm-seed=7", "--vlm-scoring=corrected")
    assert (settings.sample, settings.seed) == (50, 7)
    assert settings.scoring == "corrected"


def test_a_mirror_is_a_url_or_a_folder(load: Load, pytester: pytest.Pytester) -> None:
    url = "https://host/copies"
    assert load(f"--vlm-data-mirror={url}").data_mirror == url
    folder = pytester.mkdir("copies")
    assert load("--vlm-data-mirror=copies").data_mirror == str(folder)
    assert load("--vlm-download-max-gb=0.5").download_max_gb == 0.5


def test_flags_from_ini_and_environment(load: Load) -> None:
    assert load("--vlm-fresh").fresh
    assert load(ini='vlm_fresh = "true"').fresh
    assert load(environ={"VLM_ALLOW_MODIFIED_DATA": "1"}).allow_modified_data
    assert not load(environ={"VLM_FRESH": "off"}).fresh


def test_key_from_environment_or_file(load: Load, tmp_path: Path) -> None:
    assert load(environ={"VLM_API_KEY": "from-env"}).api_key == "from-env"
    file = tmp_path / "key"
    file.write_text("from-file\n", encoding="utf-8")
    settings = load(f"--vlm-api-key-file={file}", environ={"VLM_API_KEY": "from-env"})
    assert settings.api_key == "from-file"
    assert "from-file" not in repr(settings)


def test_help_shows_every_option_with_its_unit_and_default(
    pytester: pytest.Pytester,
) -> None:
    result = pytester.runpytest_subprocess("--help")
    text = " ".join(result.stdout.str().split())
    start = text.index("evaluation of vision-language models")
    group = text[start:]
    for option in OPTIONS:
        assert option.flag in group
        if option.default is not None:
            assert f"(default: {option.default})" in group
    assert "deadline of one request, in seconds (default: 300)" in group
    for command, text in COMMANDS.items():
        assert command in group
        assert text in group


def test_a_video_is_shown_in_one_way(load: Load) -> None:
    settings = load()
    assert (settings.nframe, settings.fps, settings.video_url) == (None, None, False)
    assert load("--vlm-nframe=4").nframe == 4
    assert load("--vlm-fps=0.5").fps == 0.5
    assert load("--vlm-video-url").video_url
    for given, named in (
        (("--vlm-nframe=4", "--vlm-fps=1"), "--vlm-nframe and --vlm-fps"),
        (("--vlm-fps=1", "--vlm-video-url"), "--vlm-fps and --vlm-video-url"),
    ):
        with pytest.raises(VlmEvalError) as caught:
            load(*given)
        assert str(caught.value) == (
            f"{named} exclude each other: a video is shown as N frames, as F frames "
            "per second or as its file. Give one of them."
        )


def test_the_hubs_are_where_their_clients_look(load: Load) -> None:
    home = Path.home() / ".cache"
    modelscope, huggingface = load().hubs
    assert modelscope.kind == "modelscope"
    assert modelscope.endpoint == "https://modelscope.cn"
    assert modelscope.cache == home / "modelscope"
    assert huggingface.kind == "huggingface"
    assert huggingface.endpoint == "https://huggingface.co"
    assert huggingface.cache == home / "huggingface" / "hub"


@pytest.mark.parametrize(
    ("environ", "endpoint", "cache"),
    [
        ({"HF_ENDPOINT": "http://h"}, "http://h", None),
        ({"HF_HOME": "/h"}, None, "/h/hub"),
        ({"HF_HOME": "/h", "HF_HUB_CACHE": "/c"}, None, "/c"),
        ({"XDG_CACHE_HOME": "/x"}, None, "/x/huggingface/hub"),
    ],
)
def test_hugging_face_is_preferred_where_modelscope_is_switched_off(
    load: Load, environ: dict[str, str], endpoint: str | None, cache: str | None
) -> None:
    for value in ("0", "False", ""):
        off = {"VLMEVALKIT_USE_MODELSCOPE": value}
        first = load(environ={**environ, **off}).hubs[0]
        assert first.kind == "huggingface"
        assert endpoint in (None, first.endpoint)
        assert cache in (None, str(first.cache))


def test_modelscope_s_own_settings(load: Load) -> None:
    environ = {"MODELSCOPE_DOMAIN": "m.example", "MODELSCOPE_CACHE": "/m"}
    first = load(environ={**environ, "VLMEVALKIT_USE_MODELSCOPE": "1"}).hubs[0]
    assert (first.kind, first.endpoint) == ("modelscope", "https://m.example")
    assert first.cache == Path("/m")


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (
            ["--vlm-limit=0"],
            {},
            "--vlm-limit=0 is not accepted: --vlm-limit takes a whole number of at "
            "least 1 (samples).",
        ),
        (
            [],
            {"VLM_TIMEOUT": "soon"},
            "VLM_TIMEOUT=soon is not accepted: --vlm-timeout takes a number above 0 "
            "(seconds).",
        ),
        (
            ["--vlm-mode=both"],
            {},
            "--vlm-mode=both is not accepted: --vlm-mode takes all, infer, score or "
            "report.",
        ),
        (
            ["--vlm-sample=0"],
            {},
            "--vlm-sample=0 is not accepted: --vlm-sample takes a whole number of at "
            "least 1 (samples).",
        ),
        (
            ["--vlm-level=0.05"],
            {},
            "--vlm-level=0.05 is not accepted: --vlm-level takes a confidence: a "
            "number from 0.5 to below 1.",
        ),
        (
            ["--vlm-seed=-1"],
            {},
            "--vlm-seed=-1 is not accepted: --vlm-seed takes a whole number of at "
            "least 0.",
        ),
        (
            ["--vlm-scoring=fixed"],
            {},
            "--vlm-scoring=fixed is not accepted: --vlm-scoring takes published, "
            "vlmevalkit or corrected.",
        ),
        (
            ["--vlm-data-mirror=/no/such/folder"],
            {},
            "--vlm-data-mirror=/no/such/folder is not accepted: --vlm-data-mirror "
            "takes an http or https URL without a password, or a folder that exists.",
        ),
        (
            ["--vlm-download-max-gb=-1"],
            {},
            "--vlm-download-max-gb=-1 is not accepted: --vlm-download-max-gb takes a "
            "number of at least 0 (GB).",
        ),
        (
            ["--vlm-temperature=nan"],
            {},
            "--vlm-temperature=nan is not accepted: --vlm-temperature takes a number "
            "of at least 0, or none.",
        ),
        (
            [],
            {"VLM_FRESH": "maybe"},
            "VLM_FRESH=maybe is not accepted: --vlm-fresh takes 1, true, yes, on, 0, "
            "false, no or off.",
        ),
    ],
)
def test_bad_values(
    load: Load, arguments: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(VlmEvalError) as error:
        load(*arguments, environ=environ)
    assert str(error.value) == message


def test_bad_value_in_the_ini_file(load: Load) -> None:
    with pytest.raises(VlmEvalError) as error:
        load(ini='vlm_retries = "-1"')
    assert str(error.value) == (
        "vlm_retries = -1 in the ini file is not accepted: --vlm-retries takes a whole "
        "number of at least 0."
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "vlm_retries = -1",
            "vlm_retries = -1 in the ini file is not accepted: --vlm-retries takes a "
            "whole number of at least 0.",
        ),
        (
            "vlm_limit = true",
            "vlm_limit = true in the ini file is not accepted: --vlm-limit takes a "
            "whole number of at least 1 (samples).",
        ),
        (
            "vlm_concurrency = 2.5",
            "vlm_concurrency = 2.5 in the ini file is not accepted: --vlm-concurrency "
            "takes a whole number of at least 1 (requests), or auto.",
        ),
        (
            "vlm_stop_early = 7",
            "vlm_stop_early = 7 in the ini file is not accepted: --vlm-stop-early "
            "takes 1, true, yes, on, 0, false, no or off.",
        ),
        (
            "vlm_model = 3.10",
            "vlm_model = 3.1 in the ini file is not accepted: --vlm-model takes a "
            "model's served name, or demo.",
        ),
        (
            'vlm_model = ["a", "b"]',
            "vlm_model = a,b in the ini file is not accepted: --vlm-model takes a "
            "model's served name, or demo.",
        ),
        (
            "vlm_judge = [1]",
            "vlm_judge = 1 in the ini file is not accepted: --vlm-judge takes names "
            "of judges, separated by commas, or exact_matching.",
        ),
        (
            "vlm_config = 1",
            "vlm_config = 1 in the ini file is not accepted: --vlm-config takes a "
            ".yaml, .yml or .json file.",
        ),
        (
            "vlm_extra_body = {top_k = 1}",
            "vlm_extra_body = *** in the ini file is not accepted: --vlm-extra-body "
            "takes the text of a JSON object without keys or passwords, without "
            "messages, stream and n, and with model, max_tokens and temperature only "
            "as null, which leaves them out.",
        ),
        (
            "vlm_api_query = 2026",
            "vlm_api_query = *** in the ini file is not accepted: --vlm-api-query "
            "takes NAME=VALUE pairs, joined by &.",
        ),
    ],
)
def test_bad_values_of_a_toml_file(
    pytester: pytest.Pytester, given: str, message: str
) -> None:
    pytester.makefile(".toml", pytest=f"[pytest]\n{given}\n")
    for from_python in (False, True):
        with pytest.raises(VlmEvalError) as error:
            load_from(
                call_sources({}, pytester.path, {})
                if from_python
                else pytest_sources(pytester.parseconfig(), {})
            )
        expected = message
        if from_python:
            name = message.partition(" takes ")[0].rpartition(" ")[2]
            keyword = name.removeprefix("--vlm-").replace("-", "_")
            expected = message.replace(f" {name} takes ", f" {keyword} takes ")
        assert str(error.value) == expected


def test_there_is_no_key_option(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--vlm-api-key=secret")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_key_files_that_cannot_be_used(load: Load, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(VlmEvalError) as error:
        load(f"--vlm-api-key-file={missing}")
    assert str(error.value) == (
        f"--vlm-api-key-file={missing} cannot be read (No such file or directory). "
        "Give a readable text file that holds only the key, or set VLM_API_KEY."
    )
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(VlmEvalError) as error:
        load(f"--vlm-api-key-file={empty}")
    assert str(error.value) == (
        f"--vlm-api-key-file={empty} is empty. Give a file that holds the key, or set "
        "VLM_API_KEY."
    )


def test_data_root_must_exist_when_named(load: Load, tmp_path: Path) -> None:
    assert load(environ={"LMUData": str(tmp_path)}).data_root == tmp_path
    with pytest.raises(VlmEvalError) as error:
        load(environ={"LMUData": "/no/such/folder"})
    assert str(error.value) == (
        "LMUData=/no/such/folder is not a folder. Make it, or point LMUData at the "
        "folder that holds the dataset files (unset, it is ~/LMUData)."
    )


def test_a_bad_value_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--vlm-model=demo", "--vlm-limit=none")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: --vlm-limit=none is not accepted: --vlm-limit takes a whole number "
            "of at least 1 (samples)."
        ]
    )


def test_a_command_line_is_shown_without_keys() -> None:
    shown = {
        "--vlm-model=qwen2-vl": "--vlm-model=qwen2-vl",
        "--vlm-max-tokens=20": "--vlm-max-tokens=20",
        "--vlm-data=MonkeyBench": "--vlm-data=MonkeyBench",
        "--vlm-api-key-file=sk-1": "--vlm-api-key-file=***",
        "vlm_api_key_file=sk-1": "vlm_api_key_file=***",
        '--vlm-extra-body={"api_key": "a b", "top_k": 4}': (
            '--vlm-extra-body={"api_key": ***, "top_k": 4}'
        ),
        "--vlm-store=postgresql://me:word@host/db": (
            "--vlm-store=postgresql://me:***@host/db"
        ),
        "--vlm-api-base=http://me:word@host:1/v1?code=2": (
            "--vlm-api-base=http://me:***@host:1/v1?***"
        ),
        "--hub=hf_abcdefgh": "--hub=***",
    }
    assert hide_keys(list(shown)) == list(shown.values())
    # A value of its own, but no option behind a flag.
    assert hide_keys(["--token", "a b", "-k", "x"]) == ["--token", "***", "-k", "x"]
    assert hide_keys(["--use-key", "--vlm-model=m"]) == ["--use-key", "--vlm-model=m"]


@pytest.mark.parametrize("name", ["model", "data", "api-base", "judge", "report"])
@pytest.mark.parametrize("text", ["", " "])
def test_a_variable_of_the_shell_that_is_not_set(
    load: Load, name: str, text: str
) -> None:
    """As in `--vlm-model=$MODEL`: it names no other model, and not all datasets."""
    accepts = BY_NAME[name].parse.accepts
    with pytest.raises(VlmEvalError) as caught:
        load(f"--vlm-{name}={text}")
    assert str(caught.value) == (
        f"--vlm-{name}={text} is not accepted: --vlm-{name} takes {accepts}."
    )


def test_an_empty_text_may_be_meant(load: Load) -> None:
    assert load("--vlm-system-prompt=").prompting.system_prompt == ""


def test_a_refusal_names_the_place_of_what_it_refuses(load: Load) -> None:
    """But for the command line, which its reader has just written."""

    def refusal(*arguments: str, **places: Any) -> str:
        with pytest.raises(VlmEvalError) as caught:
            load(*arguments, **places)
        return str(caught.value)

    demo = (
        "--vlm-image-size is for --vlm-backend=endpoint, and the model is of "
        "--vlm-backend=demo. Leave it out, or name another model."
    )
    given = ("--vlm-model=demo", "--vlm-image-size=9")
    assert refusal(*given) == demo
    assert refusal(given[0], environ={"VLM_IMAGE_SIZE": "9"}) == (
        f"{demo} VLM_IMAGE_SIZE=9 in the environment gives --vlm-image-size."
    )
    assert refusal(given[0], ini="vlm_image_size = 9") == (
        f"{demo} vlm_image_size = 9 in the ini file gives --vlm-image-size."
    )
    several = refusal(
        given[0], ini="vlm_repeat = 2", environ={"VLM_TEMPERATURE": "0.5"}
    )
    assert several.endswith(
        "Leave --vlm-repeat out. vlm_repeat = 2 in the ini file gives --vlm-repeat."
    )
    # What is secret stays so.
    secret = refusal(given[0], environ={"VLM_EXTRA_BODY": '{"top_k": 1}'})
    assert secret.endswith(
        "VLM_EXTRA_BODY=*** in the environment gives --vlm-extra-body."
    )


def test_an_address_of_other_models_is_no_mistake(load: Load) -> None:
    """A project's own address stays where the demo is tried on the command line."""
    address = {"VLM_API_BASE": "http://one/v1"}
    assert load("--vlm-model=demo", environ=address).backend == "demo"
    ini = 'vlm_api_base = "http://one/v1"'
    assert load("--vlm-model=demo", ini=ini).backend == "demo"
    with pytest.raises(VlmEvalError) as caught:
        load(environ={**address, "VLM_MODEL": "demo"})
    assert str(caught.value) == (
        "--vlm-model=demo is the model that ships with the plugin, and --vlm-api-base "
        "is the address of a server. Leave one of them out, or give "
        "--vlm-backend=endpoint if that server has a model of this name. "
        "VLM_MODEL=demo in the environment gives --vlm-model. "
        "VLM_API_BASE=http://one/v1 in the environment gives --vlm-api-base."
    )
