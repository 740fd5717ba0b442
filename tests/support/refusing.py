"""A server that refuses members of a request, as those of newer models do."""

from __future__ import annotations

from typing import Any

RENAME = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
    "'max_completion_tokens' instead."
)


ONLY_1 = (
    "Unsupported value: 'temperature' does not support 0 with this model. Only the "
    "default (1) value is supported."
)


def refuse(member: str, message: str, **more: object) -> dict[str, object]:
    """Give the rule of a server that refuses a member."""
    body = openai_error(message, member)
    return {"sends": member, "status": 400, "body": body, **more}


def openai_error(message: str, param: str | None = None) -> dict[str, Any]:
    """Give an error as OpenAI and Azure send it."""
    fields = {"message": message, "type": "invalid_request_error", "param": param}
    return {"error": {**fields, "code": "unsupported_parameter"}}
