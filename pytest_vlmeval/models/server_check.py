"""The start-up check of an endpoint: what its answers mean, and what to do then.

A list of models is evidence and no proof: some servers have none, or one that leaves
out deployments, variants and adapters. Where it decides nothing, one real request does.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_vlmeval.errors import VlmEvalError, printable
from pytest_vlmeval.models.api_base import Role

if TYPE_CHECKING:
    from pytest_vlmeval.models.chat import ReplyReader
    from pytest_vlmeval.models.client import RequestError

NAMES_SHOWN = 20
# Where a server names a model; Gemini's and Ollama's own lists use the others.
_NAMES = ("id", "name", "model")
_NO_SUCH_MODEL = re.compile(
    r"\bmodels?\b[^.]{0,60}?(?:\bnot\b|n't\b|\bno longer\b|\bunknown\b|\binvalid\b)"
    r"|\b(?:unknown|invalid|unsupported|no such|not a valid)\b[^.]{0,20}?\bmodel"
    r"|\bnot in the model_list\b|model_not_found",
    re.IGNORECASE,
)


def option_prefix(role: Role) -> str:
    """Return how the options about a model or a judge begin."""
    return "--vlm-judge-" if role == "judge" else "--vlm-"


def key_advice(role: Role) -> str:
    """Say how the key of a model or a judge is given."""
    if role == "judge":
        return (
            "Set VLM_JUDGE_API_KEY, or give a file that holds the key by "
            "--vlm-judge-api-key-file."
        )
    return "Set VLM_API_KEY, or give a file that holds the key by --vlm-api-key-file."


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What came of GET /models: the `entries` by their names, or the `problem`.

    `status` is that of an HTTP error, None where there was none. `lost` says why
    nothing came back, `moved` that it would have been from another place.
    """

    entries: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    problem: str = ""
    status: int | None = None
    lost: str = ""
    moved: str = ""

    def find(self, model: str) -> Mapping[str, object] | None:
        """Return the entry of a model, by any of the names that a server gives it."""
        if model in self.entries:
            return self.entries[model]
        for entry in self.entries.values():
            names = [str(entry.get(name)) for name in _NAMES]
            if model in names or f"models/{model}" in names:
                return entry
        return None


class ServerCheck:
    """Judges what an endpoint answers at the start; errors are `VlmEvalError`.

    `role` is what the model is there for, as its texts name the options of that.
    """

    def __init__(
        self, model: str, api_base: str, reader: ReplyReader, role: Role
    ) -> None:
        self._model = model
        self._api_base = api_base
        self._reader = reader
        self._role = role
        self._option = option_prefix(role)
        # `transformers serve` lists only what its cache holds, if it has one at all,
        # and loads at the first request, which may take minutes.
        self._named_by_path = model.startswith("/")

    def no_server(self, reason: str) -> VlmEvalError:
        """Say how to start a server where none answered."""
        parts = urlsplit(self._api_base)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        whose = "judge's " if self._role == "judge" else ""
        return VlmEvalError(
            f"No {whose}server answers at {self._api_base} ({reason}). Start one "
            "there:\n"
            f"    swift deploy --model CHECKPOINT_OR_MODEL_ID "
            f"--served_model_name {shlex.quote(self._model)} --port {port}\n"
            f"or give the URL of another by {self._option}api-base, or run without "
            + (
                "a judge by --vlm-judge=exact_matching."
                if self._role == "judge"
                else "a server by --vlm-model=demo."
            )
        )

    def read_status(self, status: int, body: bytes) -> Listing:
        """Return what an HTTP error in place of the list means; raise for a bad key."""
        words = self._reader.words(body)
        # A key may be one for chat alone: of a 403 the request decides.
        if status != HTTPStatus.FORBIDDEN:
            self._check_key(status, words)
        said = f" ({words})" if words else ""
        return Listing(problem=f"answered {status}{said}", status=status)

    def _check_key(self, status: int, words: str) -> None:
        # swift says 400 where others say 401.
        refused_by_swift = status == 400 and "api key" in words.lower()
        if status in {401, 403} or refused_by_swift:
            said = f" ({words})" if words else ""
            raise VlmEvalError(
                f"The server at {self._api_base} refuses the API key, or the lack of "
                f"one: it answered {status}{said}. {key_advice(self._role)}"
            )

    def read_models(self, body: bytes) -> Listing:
        """Read a list of models in any of the shapes that servers give it."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            value = value.get("data", value.get("models"))
        entries = {}
        for each in value if isinstance(value, list) else ():
            entry = each if isinstance(each, dict) else {"id": each}
            name = next((entry[key] for key in _NAMES if entry.get(key)), None)
            if isinstance(name, str):
                entries[name] = entry
        if entries or value == []:
            return Listing(entries=entries)
        words = self._reader.words(body) or "an empty body"
        return Listing(problem=f"answered with what is not a list of models: {words}")

    def is_settled(self, listing: Listing) -> bool:
        """Whether no request is needed to know that the model can be asked."""
        return self._named_by_path or listing.find(self._model) is not None

    def explain(self, listing: Listing, error: RequestError | None) -> str:
        """Say how it goes on after a real request; raise where it cannot.

        `error` is why that got no answer, None where it got one.
        """
        if error is not None:
            words = str(error)
            self._check_key(error.status or 0, words.partition(": ")[2])
            if not self._may_be_of_the_request(error):
                raise self._refused(listing, error)
            outcome = f"A request for {self._model!r} was refused ({words})"
        else:
            outcome = f"A request for {self._model!r} was answered"
        if listing.problem:
            return (
                f"{self._api_base}/models {listing.problem.rstrip('.')}. {outcome}, so "
                "that the run goes on."
            )
        return (
            f"The server at {self._api_base} does not list {self._model!r}, but: "
            f"{self._shown(listing)}. {outcome}, so that the run goes on."
        )

    def _may_be_of_the_request(self, error: RequestError) -> bool:
        """Whether a refusal is about this small request, and not about the model."""
        if error.status == 429:
            return True
        words = str(error)
        named = re.search(rf"""[`'"]{re.escape(self._model)}[`'"]""", words)
        of_the_model = named or _NO_SUCH_MODEL.search(words)
        return error.status in {400, 413, 422} and not of_the_model

    def _refused(self, listing: Listing, error: RequestError) -> VlmEvalError:
        if not listing.problem:
            return self._not_served(listing, error)
        if error.status in {404, 405} and listing.status in {404, 405, None}:
            return VlmEvalError(
                f"{self._api_base}/models {listing.problem.rstrip('.')}, and a request "
                f"to {self._api_base}/chat/completions was refused: {error}. Either "
                "this is not the base URL of an OpenAI-compatible API, which mostly "
                f"ends in /v1: give it by {self._option}api-base. Or the server does "
                f"not serve {self._model!r}: give the name by --vlm-{self._role}."
            )
        if error.kind == "protocol":
            return VlmEvalError(
                f"{self._api_base}/models {listing.problem.rstrip('.')}, and a request "
                f"for {self._model!r} has no answer: {error}. Is this the base URL of "
                "an OpenAI-compatible API? Such URLs mostly end in /v1. Give it by "
                f"{self._option}api-base."
            )
        return VlmEvalError(
            f"The server at {self._api_base} cannot be asked: its list of models "
            f"{listing.problem.rstrip('.')}, and a request for {self._model!r} has no "
            f"answer: {error}. See its log, give the URL of another by "
            f"{self._option}api-base, or the name that it serves by "
            f"--vlm-{self._role}."
        )

    def _not_served(self, listing: Listing, error: RequestError) -> VlmEvalError:
        close = difflib.get_close_matches(self._model, list(listing.entries), n=1)
        question = f" Did you mean {close[0]}?" if close else ""
        return VlmEvalError(
            f"The server at {self._api_base} does not serve {self._model!r}.{question} "
            f"It serves: {self._shown(listing)}. Give one of these by "
            f"--vlm-{self._role}. It was asked all the same, and refused: {error}"
        )

    def _shown(self, listing: Listing) -> str:
        names = list(listing.entries)
        shown = printable(", ".join(names[:NAMES_SHOWN])) or "none"
        if len(names) > NAMES_SHOWN:
            shown += f" and {len(names) - NAMES_SHOWN} more"
        return shown
