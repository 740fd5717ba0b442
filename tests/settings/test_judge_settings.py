"""Which judge a run has, by options and environment, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings import Settings, load_settings
from pytest_vlmeval.settings.groups import OFFICIAL

Load = Callable[..., Settings]
OURS = "--vlm-judge-api-base=http://judge/v1"


@pytest.fixture
def load(pytester: pytest.Pytester) -> Load:
    """Return what loads settings from arguments and environment."""

    def load(*arguments: str, **environ: str) -> Settings:
        return load_settings(pytester.parseconfig(*arguments), environ)

    return load


def judges(settings: Settings) -> list[tuple[str, str, str | None]]:
    return [
        (each.name, " ".join(each.api_bases), each.api_key) for each in settings.judges
    ]


def test_without_any_it_is_exact_matching(load: Load) -> None:
    assert load().judges == ()
    assert load().judging == "exact matching (no judge)"


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
    load: Load,
    arguments: list[str],
    environ: dict[str, str],
    expected: tuple[str, str, str | None],
) -> None:
    settings = load(*arguments, **environ)
    assert judges(settings) == [expected]
    assert settings.judging == f"judge {expected[0]} at {expected[1]}"


def test_a_key_is_not_shown(load: Load) -> None:
    settings = load("--vlm-judge=j", OURS, VLM_JUDGE_API_KEY="sk-secret")
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
    load: Load, arguments: list[str], environ: dict[str, str], said: str
) -> None:
    settings = load(*arguments, **environ)
    assert settings.judges == ()
    assert settings.judging == f"exact matching (no judge: {said})"
    # What that advises is the judge, at the address that is there.
    (named,) = load("--vlm-judge=NAME", **environ).judges
    address = environ.get("OPENAI_API_BASE", "https://api.openai.com/v1")
    assert (named.name, named.api_bases) == ("NAME", (address,))


def test_exact_matching_is_forced(load: Load) -> None:
    settings = load(
        "--vlm-judge=exact_matching", LOCAL_LLM="q", OPENAI_API_BASE="http://own"
    )
    assert (settings.judges, settings.judging) == ((), "exact matching (no judge)")


def test_several_judges_and_where_they_are(load: Load) -> None:
    names = ["--vlm-judge=a", "--vlm-judge=b"]
    assert judges(load(*names, OURS)) == [
        ("a", "http://judge/v1", None),
        ("b", "http://judge/v1", None),
    ]
    settings = load("--vlm-judge=a,b", OURS, "--vlm-judge-api-base=http://second/v1")
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
    load: Load, arguments: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(VlmEvalError) as error:
        load(*arguments, **environ)
    assert str(error.value) == message
