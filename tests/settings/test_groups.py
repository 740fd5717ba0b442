"""How a model and its judges are asked: members, queries, headers, keys, addresses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings import Settings, load_from
from pytest_vlmeval.settings.groups import OFFICIAL, read_headers
from pytest_vlmeval.settings.sources import pytest_sources
from tests.support.option_calls import Load
from tests.support.option_calls import load as load

SECRET = "canary-7d41c0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"api-key: {SECRET}\n{SECRET}\n",
            ", line 2 is not a header: write Name: value.",
        ),
        (f"api key: {SECRET}", ", line 1 is not a header: write Name: value."),
        (
            f"# ours\n\nHost: {SECRET}",
            ", line 3 gives Host, which each request sets by itself. Leave it out.",
        ),
        (f"a: 1\nA: {SECRET}", ", line 2 gives A a second time."),
        ("a:", ", line 1 gives a a value that cannot be sent: printable ASCII can."),
        ("a: schlüssel", ", line 1 gives a a value that cannot be sent: printable ASC"),
        ("# nothing\n", " holds no header. Write one a line: Name: value."),
    ],
)
def test_a_file_of_headers_that_cannot_be_used(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "headers"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(VlmEvalError) as caught:
        read_headers(file, "--vlm-api-header-file=headers")
    assert str(caught.value).startswith(f"--vlm-api-header-file=headers{said}")
    assert SECRET not in str(caught.value)


def test_a_file_of_headers_is_read(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("\ufeff# Azure\napi-key:  k:1 \n\nX-Y: 2\r\n", encoding="utf-8")
    assert read_headers(file, "") == (("api-key", "k:1"), ("X-Y", "2"))
    with pytest.raises(VlmEvalError) as caught:
        read_headers(tmp_path / "none", "--vlm-api-header-file=none")
    assert str(caught.value) == (
        "--vlm-api-header-file=none cannot be read (No such file or directory). Give a "
        "readable text file that holds a header a line: Name: value."
    )


def test_options_of_requests(load: Load, tmp_path: Path) -> None:
    headers = tmp_path / "h"
    headers.write_text(f"api-key: {SECRET}")
    settings = load(
        "--vlm-max-tokens=none",
        "--vlm-temperature=none",
        "--vlm-max-tokens-name=limit",
        f"--vlm-api-query=a={SECRET}&b=",
        f"--vlm-api-header-file={headers}",
        '--vlm-extra-body={"top_p": 1, "seed": null, "model": null}',
    )
    assert (settings.max_tokens, settings.temperature) == (None, None)
    form = settings.form
    assert form.max_tokens_name == "limit"
    assert form.left_out == {"max_tokens", "temperature", "seed", "model"}
    assert form.query == (("a", SECRET), ("b", ""))
    assert form.headers == (("api-key", SECRET),)
    assert settings.prompting.extra_body == '{"top_p": 1}'
    # Null in the body is the same run as the option's none.
    other = load('--vlm-extra-body={"max_tokens": null, "temperature": null}')
    assert (other.max_tokens, other.temperature) == (None, None)
    assert other.prompting.extra_body == ""


def test_options_of_a_judge_s_requests(load: Load) -> None:
    judge = ("--vlm-judge=gpt-5", "--vlm-judge-api-base=http://127.0.0.1:1/v1")
    (plain,) = load(*judge).judges
    assert plain.label == "gpt-5"
    settings = load(
        *judge,
        "--vlm-judge-temperature=none",
        "--vlm-judge-max-tokens=9000",
        "--vlm-judge-max-tokens-name=max_completion_tokens",
        f"--vlm-judge-api-query=k={SECRET}",
        '--vlm-judge-extra-body={"reasoning_effort": "low", "model": null}',
    )
    (asked,) = settings.judges
    # Asked otherwise it is another judge: its scores and replies are others.
    label = (
        'gpt-5 (max_tokens=9000, temperature=none, extra_body={"reasoning_effort": '
        '"low"})'
    )
    assert asked.label == label
    assert settings.judging == f"judge {label} at http://127.0.0.1:1/v1"
    assert asked.asking.changes == {"temperature": None, "max_tokens": 9000}
    form = asked.asking.form
    assert form.max_tokens_name == "max_completion_tokens"
    assert form.left_out == {"temperature", "model"}
    assert form.query == (("k", SECRET),)
    assert SECRET not in repr(settings.judges)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--vlm-model=demo", "--vlm-temperature=none"],
            "--vlm-temperature=none leaves it to the model's server, and "
            "--vlm-backend=demo has none. Give a number, or leave it out.",
        ),
        (
            ["--vlm-model=m", "--vlm-backend=local", f"--vlm-api-query=a={SECRET}"],
            "--vlm-api-query is for --vlm-backend=endpoint, and the model is of "
            "--vlm-backend=local. Leave it out: ",
        ),
        (
            [f"--vlm-api-query={SECRET}"],
            "--vlm-api-query=*** is not accepted: --vlm-api-query takes NAME=VALUE "
            "pairs, joined by &.",
        ),
        (
            ["--vlm-max-tokens-name=temperature"],
            "--vlm-max-tokens-name=temperature is not accepted: --vlm-max-tokens-name "
            "takes the name of a member, such as max_completion_tokens.",
        ),
        (
            [f'--vlm-extra-body={{"headers": {{"Authorization": "{SECRET}"}}}}'],
            "--vlm-extra-body=*** is not accepted: --vlm-extra-body takes the text "
            "of a JSON object without keys or passwords, without messages, stream and "
            "n, and with model, max_tokens and temperature only as null, which leaves "
            "them out.",
        ),
        (
            ["--vlm-temperature=0.5", '--vlm-extra-body={"temperature": null}'],
            "--vlm-temperature=0.5 and null for temperature in --vlm-extra-body "
            "exclude each other. Leave one of them out.",
        ),
        (
            [
                *("--vlm-judge=j", "--vlm-judge-api-base=http://h/v1"),
                "--vlm-judge-max-tokens=5",
                '--vlm-judge-extra-body={"max_tokens": null}',
            ],
            "--vlm-judge-max-tokens=5 and null for max_tokens in "
            "--vlm-judge-extra-body exclude each other. Leave one of them out.",
        ),
        (
            ["--vlm-repeat=3"],
            "--vlm-repeat=3 asks each sample 3 times, but at --vlm-temperature=0 a "
            "model answers alike each time.",
        ),
        (
            [f"--vlm-api-key-file={SECRET}"],
            "--vlm-api-key-file=*** cannot be read (No such file or directory). Give a "
            "readable text file that holds only the key, or set VLM_API_KEY.",
        ),
        (
            [f"--vlm-api-base=https://{SECRET}@host/v1", "--vlm-limit=x"],
            "--vlm-limit=x is not accepted",
        ),
    ],
)
def test_options_that_cannot_be_used(
    load: Load, arguments: list[str], said: str
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        load(*arguments)
    assert str(caught.value).startswith(said)
    assert SECRET not in str(caught.value)


def test_a_header_in_the_key_s_place(load: Load, tmp_path: Path) -> None:
    headers = tmp_path / "h"
    headers.write_text(f"Authorization: Bearer {SECRET}")
    with pytest.raises(VlmEvalError) as caught:
        load(f"--vlm-api-header-file={headers}", environ={"VLM_API_KEY": "k"})
    assert str(caught.value) == (
        "--vlm-api-header-file gives Authorization, and so does the API key "
        "(VLM_API_KEY, --vlm-api-key-file). Leave one of them out."
    )
    judge = [
        *("--vlm-judge=j", "--vlm-judge-api-base=https://api.openai.com/v1"),
        f"--vlm-judge-api-header-file={headers}",
    ]
    with pytest.raises(VlmEvalError, match="VLM_JUDGE_API_KEY, --vlm-judge-api-key-f"):
        load(*judge, environ={"VLM_JUDGE_API_KEY": "k"})
    # Nobody said that this one is for there.
    (chosen,) = load(*judge, environ={"OPENAI_API_KEY": "k"}).judges
    assert chosen.api_key is None


LoadJudges = Callable[..., Settings]
OURS = "--vlm-judge-api-base=http://judge/v1"


@pytest.fixture
def load_judges(pytester: pytest.Pytester) -> LoadJudges:
    """Return what loads settings from arguments and environment."""

    def load_judges(*arguments: str, **environ: str) -> Settings:
        return load_from(pytest_sources(pytester.parseconfig(*arguments), environ))

    return load_judges


def judges(settings: Settings) -> list[tuple[str, str, str | None]]:
    return [
        (each.name, " ".join(each.api_bases), each.api_key) for each in settings.judges
    ]


def test_without_any_it_is_exact_matching(load_judges: LoadJudges) -> None:
    assert load_judges().judges == ()
    assert load_judges().judging == "exact matching (no judge)"


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        (
            [],
            {
                "LOCAL_LLM": "qwen",
                "OPENAI_API_BASE": "http://own:1/v1/chat/completions",
            },
            ("qwen", "http://own:1/v1/chat/completions", None),
        ),
        (
            [],
            {
                "LOCAL_LLM": "qwen",
                "OPENAI_API_BASE": "http://own",
                "OPENAI_API_KEY": "k",
            },
            ("qwen", "http://own", "k"),
        ),
        # The command line comes first.
        (
            ["--vlm-judge=other", OURS],
            {
                "LOCAL_LLM": "qwen",
                "OPENAI_API_BASE": "http://own",
                "OPENAI_API_KEY": "k",
            },
            ("other", "http://judge/v1", None),
        ),
        (
            ["--vlm-judge=other", OURS],
            {"VLM_JUDGE_API_KEY": "own", "OPENAI_API_KEY": "k"},
            ("other", "http://judge/v1", "own"),
        ),
        (
            [OURS],
            {"LOCAL_LLM": "qwen", "OPENAI_API_BASE": "http://own"},
            ("qwen", "http://judge/v1", None),
        ),
        # Named and paid for.
        (
            ["--vlm-judge=gpt-4o-mini"],
            {"OPENAI_API_KEY": "k"},
            ("gpt-4o-mini", OFFICIAL, "k"),
        ),
        (
            ["--vlm-judge=gpt-4o-mini", f"--vlm-judge-api-base={OFFICIAL}"],
            {"OPENAI_API_KEY": "k"},
            ("gpt-4o-mini", OFFICIAL, "k"),
        ),
        (
            [],
            {
                "VLM_JUDGE": "gpt-4o-mini",
                "OPENAI_API_BASE": "OFFICIAL",
                "OPENAI_API_KEY": "k",
            },
            ("gpt-4o-mini", OFFICIAL, "k"),
        ),
    ],
)
def test_one_judge(
    load_judges: LoadJudges,
    arguments: list[str],
    environ: dict[str, str],
    expected: tuple[str, str, str | None],
) -> None:
    settings = load_judges(*arguments, **environ)
    assert judges(settings) == [expected]
    assert settings.judging == f"judge {expected[0]} at {expected[1]}"


def test_a_key_is_not_shown(load_judges: LoadJudges) -> None:
    settings = load_judges("--vlm-judge=j", OURS, VLM_JUDGE_API_KEY="sk-secret")
    assert settings.judges[0].api_key == "sk-secret"
    assert "sk-secret" not in repr(settings.judges)


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (
            [],
            {"OPENAI_API_KEY": "k"},
            "OPENAI_API_KEY names none, --vlm-judge=NAME does",
        ),
        (
            [],
            {"OPENAI_API_KEY": "k", "OPENAI_API_BASE": "http://own"},
            "OPENAI_API_KEY and OPENAI_API_BASE name none, --vlm-judge=NAME does",
        ),
    ],
)
def test_what_names_no_judge_costs_nothing(
    load_judges: LoadJudges, arguments: list[str], environ: dict[str, str], said: str
) -> None:
    settings = load_judges(*arguments, **environ)
    assert settings.judges == ()
    assert settings.judging == f"exact matching (no judge: {said})"
    # What that advises is the judge, at the address that is there.
    (named,) = load_judges("--vlm-judge=NAME", **environ).judges
    address = environ.get("OPENAI_API_BASE", "https://api.openai.com/v1")
    assert (named.name, named.api_bases) == ("NAME", (address,))


def test_exact_matching_is_forced(load_judges: LoadJudges) -> None:
    settings = load_judges(
        "--vlm-judge=exact_matching", LOCAL_LLM="q", OPENAI_API_BASE="http://own"
    )
    assert (settings.judges, settings.judging) == ((), "exact matching (no judge)")


def test_several_judges_and_where_they_are(load_judges: LoadJudges) -> None:
    names = ["--vlm-judge=a", "--vlm-judge=b"]
    assert judges(load_judges(*names, OURS)) == [
        ("a", "http://judge/v1", None),
        ("b", "http://judge/v1", None),
    ]
    settings = load_judges(
        "--vlm-judge=a,b", OURS, "--vlm-judge-api-base=http://second/v1"
    )
    assert settings.judging == "judge a at http://judge/v1, judge b at http://second/v1"


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (
            ["--vlm-judge=qwen"],
            {},
            "--vlm-judge=qwen names a judge, and nothing says where it is. Give its "
            "URL with --vlm-judge-api-base or OPENAI_API_BASE, or set OPENAI_API_KEY "
            "for https://api.openai.com/v1.",
        ),
        (
            [],
            {"LOCAL_LLM": "qwen", "OPENAI_API_KEY": "k"},
            "LOCAL_LLM=qwen names a judge, and nothing says where it is. Give its URL "
            "with --vlm-judge-api-base or OPENAI_API_BASE, or do without with "
            "--vlm-judge=exact_matching.",
        ),
        (
            ["--vlm-judge=a,exact_matching"],
            {},
            "--vlm-judge=a,exact_matching: exact_matching means to have no judge, and "
            "stands alone.",
        ),
        (
            ["--vlm-judge=a", "--vlm-judge=a", OURS],
            {},
            "--vlm-judge=a,a names a judge twice. Several judges are different models.",
        ),
        (
            ["--vlm-judge=a,b,c", OURS, OURS],
            {},
            "--vlm-judge names 3 judges and --vlm-judge-api-base 2 URLs. Give one URL "
            "for all, or one for each in this order.",
        ),
        (
            ["--vlm-judge=a", OURS, "--vlm-judge-api-key-file=/no/such"],
            {},
            # It may be the key itself.
            "--vlm-judge-api-key-file=*** cannot be read (No such file or directory). "
            "Give a readable text file that holds only the key, or set "
            "VLM_JUDGE_API_KEY.",
        ),
    ],
)
def test_what_does_not_go_together(
    load_judges: LoadJudges, arguments: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(VlmEvalError) as error:
        load_judges(*arguments, **environ)
    assert str(error.value) == message
