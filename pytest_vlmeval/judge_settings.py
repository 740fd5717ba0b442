"""Which judges a run has: what the options and ms-vlmeval's environment say together.

ms-vlmeval itself takes the judge's name from LOCAL_LLM, else a paid model of its own
choice, its address from OPENAI_API_BASE, else api.openai.com, and its key from
OPENAI_API_KEY. Here a judge is asked only where one is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import shown_address
from pytest_vlmeval.records import JudgeQuestion
from pytest_vlmeval.request_settings import (
    NONE,
    PLAIN,
    RequestForm,
    check_key,
    choose_form,
    split_body,
)

EXACT_MATCHING = "exact_matching"
SERVED = "on a server of this run"
OFFICIAL = "https://api.openai.com/v1"
# What ms-vlmeval's users have set (dataset/utils/judge_util.py, api/gpt.py).
OPENAI_VARIABLES = ("OPENAI_API_KEY", "OPENAI_API_BASE", "LOCAL_LLM")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeAsking:
    """How judges are asked: `changes` are settings of each question, by their names.

    None in it is a setting that is not sent. `extra_body` is the JSON of further
    members of each request, "" for none.
    """

    changes: Mapping[str, int | float | None] = field(default_factory=dict)
    extra_body: str = ""
    form: RequestForm = PLAIN

    def change(self, question: JudgeQuestion) -> JudgeQuestion:
        """Return a question as it is asked."""
        return replace(question, **self.changes)  # type: ignore[arg-type]

    def describe(self) -> str:
        """Say what is different from what questions say themselves, "" for nothing."""
        said = [
            f"{name}={NONE if value is None else value}"
            for name, value in sorted(self.changes.items())
        ]
        if self.extra_body:
            said.append(f"extra_body={self.extra_body}")
        return ", ".join(said)


AS_ASKED = JudgeAsking()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeEndpoint:
    """A judge: the name it is served under, the servers that do, and their key.

    `api_bases` is empty where the run starts the server.
    """

    name: str
    api_bases: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    asking: JudgeAsking = AS_ASKED

    @property
    def label(self) -> str:
        """What names the judge in scores and reports: asked otherwise, another one."""
        said = self.asking.describe()
        return f"{self.name} ({said})" if said else self.name


def choose_asking(
    values: Mapping[str, Any], headers: tuple[tuple[str, str], ...]
) -> JudgeAsking:
    """Return how the options want judges to be asked; `VlmEvalError`."""
    extra_body, left_out = split_body(values["judge-extra-body"])
    changes: dict[str, int | float | None] = {}
    for name in ("max-tokens", "temperature"):
        member, value = name.replace("-", "_"), values[f"judge-{name}"]
        if member in left_out and value not in (None, NONE):
            raise VlmEvalError(
                f"--vlm-judge-{name}={value:g} and null for {member} in "
                "--vlm-judge-extra-body exclude each other. Leave one of them out."
            )
        if value == NONE or member in left_out:
            changes[member] = None
            left_out |= {member}
        elif value is not None:
            changes[member] = value
    form = choose_form(values, left_out, headers, judge=True)
    return JudgeAsking(changes=changes, extra_body=extra_body, form=form)


def choose_judges(
    names: Sequence[str],
    bases: Sequence[str],
    api_key: str | None,
    openai: Mapping[str, str],
    asking: JudgeAsking = AS_ASKED,
) -> tuple[JudgeEndpoint, ...]:
    """Return the judges of a run, none for exact matching.

    `names`, `bases` and `api_key` are those of our own options, `openai` holds the
    variables of OPENAI_VARIABLES. Raises `VlmEvalError` for judges that do not go
    together, and for one whose address nothing says.
    """
    given = "LOCAL_LLM"
    if names:
        given = "--vlm-judge"
    elif local := openai.get("LOCAL_LLM"):
        names = (local,)
    if EXACT_MATCHING in names and len(set(names)) > 1:
        raise VlmEvalError(
            f"--vlm-judge={','.join(names)}: exact_matching means to have no judge, "
            "and stands alone."
        )
    if len(set(names)) < len(names):
        raise VlmEvalError(
            f"--vlm-judge={','.join(names)} names a judge twice. Several judges are "
            "different models."
        )
    if not names or names[0] == EXACT_MATCHING:
        return ()
    judges = tuple(
        replace(_place(name, places, api_key, openai, given), asking=asking)
        for name, places in zip(names, _spread(names, bases), strict=True)
    )
    check_key(api_key, asking.form.headers, judge=True)
    if any(name.lower() == "authorization" for name, _ in asking.form.headers):
        # OPENAI_API_KEY was not meant for where a header says who asks.
        judges = tuple(replace(judge, api_key=None) for judge in judges)
    return judges


def _spread(names: Sequence[str], bases: Sequence[str]) -> Sequence[Sequence[str]]:
    """Return the URLs of each judge: all of them where there is one judge."""
    if len(names) == 1:
        return [bases]
    if len(bases) not in {0, 1, len(names)}:
        raise VlmEvalError(
            f"--vlm-judge names {len(names)} judges and --vlm-judge-api-base "
            f"{len(bases)} URLs. Give one URL for all, or one for each in this order."
        )
    if len(bases) == len(names):
        return [(base,) for base in bases]
    return [bases] * len(names)


def _place(
    name: str,
    bases: Sequence[str],
    api_key: str | None,
    openai: Mapping[str, str],
    given: str,
) -> JudgeEndpoint:
    """Find a judge's servers; OPENAI_API_KEY goes only where it is meant for."""
    if bases:
        hosts = {urlsplit(base).hostname for base in bases}
        meant = hosts == {urlsplit(OFFICIAL).hostname}
        key = api_key or (openai.get("OPENAI_API_KEY") if meant else None)
        given_bases = tuple(filter(None, bases))
        return JudgeEndpoint(name=name, api_bases=given_bases, api_key=key)
    key = api_key or openai.get("OPENAI_API_KEY") or None
    base = openai.get("OPENAI_API_BASE")
    if base:
        base = OFFICIAL if base == "OFFICIAL" else base
        return JudgeEndpoint(name=name, api_bases=(base,), api_key=key)
    if given == "--vlm-judge" and openai.get("OPENAI_API_KEY"):
        return JudgeEndpoint(name=name, api_bases=(OFFICIAL,), api_key=key)
    raise VlmEvalError(
        f"{given}={name} names a judge, and nothing says where it is. Give its URL by "
        "--vlm-judge-api-base or OPENAI_API_BASE"
        + (
            f", or set OPENAI_API_KEY for {OFFICIAL}"
            if given == "--vlm-judge"
            else ", or do without by --vlm-judge=exact_matching"
        )
        + "."
    )


def describe_judges(
    judges: Sequence[JudgeEndpoint], names: Sequence[str], openai: Mapping[str, str]
) -> str:
    """Say in a few words which judges there are, or why there is none."""
    if judges:
        places = [", ".join(map(shown_address, each.api_bases)) for each in judges]
        return ", ".join(
            f"judge {each.label} {f'at {place}' if place else SERVED}"
            for each, place in zip(judges, places, strict=True)
        )
    idle = [name for name in OPENAI_VARIABLES[:2] if openai.get(name)]
    if idle and not names:
        verb = "names" if len(idle) == 1 else "name"
        return (
            f"exact matching (no judge: {' and '.join(idle)} {verb} none, "
            "--vlm-judge=NAME does)"
        )
    return "exact matching (no judge)"
