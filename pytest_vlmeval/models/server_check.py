"""The start-up check of an endpoint: what its answers mean, and what to do then."""

from __future__ import annotations

import difflib
import json
import shlex
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.evidence import read_entry

if TYPE_CHECKING:
    from pytest_vlmeval.models.chat import ReplyReader

NAMES_SHOWN = 20
Role = Literal["model", "judge"]


def key_advice(role: Role) -> str:
    """Say how the key of a model or a judge is given."""
    if role == "judge":
        return (
            "Set VLM_JUDGE_API_KEY, or give a file that holds the key by "
            "--vlm-judge-api-key-file."
        )
    return "Set VLM_API_KEY, or give a file that holds the key by --vlm-api-key-file."


class ServerCheck:
    """Judges the answer to GET /models; every trouble is a `VlmEvalError`.

    `role` is what the model is there for, as its texts name the options of that.
    """

    def __init__(
        self, model: str, api_base: str, reader: ReplyReader, role: Role
    ) -> None:
        self._model = model
        self._api_base = api_base
        self._reader = reader
        self._role = role
        self._option = "--vlm-judge-" if role == "judge" else "--vlm-"
        # `transformers serve` lists only what its cache holds, if it has one at all.
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

    def read_status(self, status: int, body: bytes) -> None:
        """Raise for an HTTP error, except where a server merely has no such list."""
        words = self._reader.words(body)
        said = f" ({words})" if words else ""
        # swift says 400 where others say 401.
        refused_by_swift = status == 400 and "api key" in words.lower()
        if status in {401, 403} or refused_by_swift:
            raise VlmEvalError(
                f"The server at {self._api_base} refuses the API key, or the lack of "
                f"one: it answered {status}{said}. {key_advice(self._role)}"
            )
        if status not in {404, 405} and not self._named_by_path:
            raise VlmEvalError(
                f"The server at {self._api_base} cannot list its models: it answered "
                f"{status}{said} to GET {self._api_base}/models. See its log, or give "
                f"the URL of another by {self._option}api-base."
            )

    def read_models(self, body: bytes) -> None:
        """Raise unless the list holds our model."""
        served = self._served(body)
        if self._model in served or self._named_by_path:
            return
        shown = ", ".join(served[:NAMES_SHOWN]) or "none"
        if len(served) > NAMES_SHOWN:
            shown += f" and {len(served) - NAMES_SHOWN} more"
        close = difflib.get_close_matches(self._model, served, n=1)
        question = f" Did you mean {close[0]}?" if close else ""
        raise VlmEvalError(
            f"The server at {self._api_base} does not serve {self._model!r}.{question} "
            f"It serves: {shown}. Give one of these by --vlm-{self._role}."
        )

    def read_evidence(self, body: bytes) -> dict[str, str]:
        """Return what the list says of our model, nothing where it is not in there."""
        try:
            listed = json.loads(body)
            entries = listed["data"] if isinstance(listed, dict) else listed
            ours = [each for each in entries if each.get("id") == self._model]
            return read_entry(ours[0]) if ours else {}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}

    def _served(self, body: bytes) -> list[str]:
        try:
            return [str(model["id"]) for model in json.loads(body)["data"]]
        except (ValueError, TypeError, KeyError):
            words = self._reader.words(body) or "an empty body"
            raise VlmEvalError(
                f"{self._api_base}/models answered with what is not a list of models: "
                f"{words}. Is this the base URL of an OpenAI-compatible API? Such "
                f"URLs mostly end in /v1. Give it by {self._option}api-base."
            ) from None
