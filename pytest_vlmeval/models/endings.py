"""How an answer ended, in the words of servers: `finish_reason` and what it means."""

from __future__ import annotations

import re
from typing import Literal

# "broken_off": the server gave up in the middle; "unknown": a word of its own.
Ending = Literal["complete", "cut_off", "filtered", "refused", "broken_off", "unknown"]

TOOL_CALLS = "tool_calls"
# Our own word: the server says that the answer is whole, but it ends in a thought.
UNCLOSED_THOUGHT = "unclosed_thought"
_TOOLS = frozenset([TOOL_CALLS, "tool_call", "tool_use", "function_call"])
# As servers write them, in lower case: OpenAI, vLLM, SGLang, LMDeploy, TGI,
# TensorRT-LLM, Anthropic, Bedrock, Gemini, Cohere, Mistral, watsonx, DashScope, Zhipu,
# DeepSeek.
_ENDINGS: dict[Ending, frozenset[str]] = {
    "complete": frozenset(
        "stop eos eos_token end_turn stop_sequence stop_token complete completed "
        "finish finished normal null unspecified".split()
    )
    | _TOOLS,
    "cut_off": frozenset(
        "length max_tokens max_token model_length max_length max_new_tokens "
        "max_output_tokens max_completion_tokens token_limit error_limit "
        "model_context_window_exceeded context_length_exceeded".split()
    )
    | {UNCLOSED_THOUGHT},
    "filtered": frozenset(
        "content_filter content_filtered content_filtering safety image_safety "
        "recitation image_recitation prohibited_content image_prohibited_content "
        "blocklist spii language sensitive guardrail_intervened guardrails "
        "error_toxic moderation data_inspection_failed".split()
    ),
    "refused": frozenset(["refusal", "refused"]),
    "broken_off": frozenset(
        "abort aborted error cancelled canceled user_cancel timeout time_limit "
        "network_error not_finished insufficient_system_resource".split()
    ),
}
_BY_WORD = {word: ending for ending, words in _ENDINGS.items() for word in words}


def _normalize(finish_reason: str) -> str:
    word = re.sub(r"[\s-]+", "_", finish_reason.strip().lower())
    return word.removeprefix("finish_reason_")


def find_ending(finish_reason: str) -> Ending:
    """Return what a finish_reason means, in whatever case and spelling."""
    word = _normalize(finish_reason)
    return _BY_WORD.get(word, "unknown") if word else "complete"


def is_cut_off(finish_reason: str) -> bool:
    """Return whether a limit of tokens ended the answer, or the thoughts before it."""
    return find_ending(finish_reason) == "cut_off"


def calls_tools(finish_reason: str) -> bool:
    """Return whether a finish_reason says that the model called a tool."""
    return _normalize(finish_reason) in _TOOLS
