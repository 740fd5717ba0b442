"""What an endpoint takes beside text: tried with a small request each, not guessed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.models.client import Request, RequestError
from pytest_vlmeval.prompts import PromptPart, Turn

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import ModelClient
    from pytest_vlmeval.prompt_settings import Prompting

# A picture, several of them in one prompt, the file of a video.
Capability = Literal["image", "images", "video"]
State = Literal["accepted", "refused", "unknown"]

NAMES: dict[Capability, str] = {
    "image": "pictures",
    "images": "several pictures in one prompt",
    "video": "videos",
}
# What to do where an endpoint refuses one.
REMEDIES: dict[Capability, str] = {
    "image": "Serve a vision-language model.",
    "images": "vLLM takes more by --limit-mm-per-prompt.",
    "video": "Without --vlm-video-url frames of each video are sent.",
}

PROBES = Path(__file__).parent / "probe"
# A server may compile what it needs at its first request.
TRY_LIMIT_S = 60.0
MAX_TOKENS = 8
# The first includes the second.
ORDER: tuple[Capability, ...] = ("images", "image", "video")
_TEXT = PromptPart(kind="text", text="Answer with one word: what is this?")
_PICTURE = PromptPart(kind="image", media="picture.png", media_type="image/png")
_VIDEO = PromptPart(kind="video", media="video.mp4", media_type="video/mp4")
_PROMPTS: dict[Capability | None, Turn] = {
    None: (_TEXT,),
    "image": (_PICTURE, _TEXT),
    "images": (_PICTURE, _PICTURE, _TEXT),
    "video": (_VIDEO, _TEXT),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a try has shown: `refused` only where the same without media is answered.

    `unknown` is everything else that went wrong, of which `words` tell.
    """

    capability: Capability
    state: State
    words: str = ""


def needed_for(pictures: int, videos: int) -> set[Capability]:
    """Return what a prompt with so many pictures and videos asks of an endpoint."""
    needed: set[Capability] = set()
    if pictures:
        needed.add("image")
    if pictures > 1:
        needed.add("images")
    if videos:
        needed.add("video")
    return needed


async def try_media(
    client: ModelClient, wanted: Collection[Capability], prompting: Prompting
) -> list[Finding]:
    """Send one request for each of `wanted`, none for what another one shows.

    Where something is refused, one of text alone tells whether that is the reason.
    """
    found: dict[Capability, Finding] = {}
    state: State = "accepted"
    words = ""
    for capability in ORDER:
        if capability not in wanted:
            continue
        if capability == "image" and _is(found.get("images"), "accepted"):
            found["image"] = replace(found["images"], capability="image")
            continue
        if state != "unknown":  # what is out of order is not tried any further
            state, words = await _try(client, capability, prompting)
        found[capability] = Finding(capability=capability, state=state, words=words)
    if any(_is(finding, "refused") for finding in found.values()):
        state, words = await _try(client, None, prompting)
        if state != "accepted":
            return [_doubt(finding, words) for finding in found.values()]
    return list(found.values())


def _is(finding: Finding | None, state: State) -> bool:
    return finding is not None and finding.state == state


def _doubt(finding: Finding, words: str) -> Finding:
    """Take back a refusal: text alone fails too, so it is not about media."""
    if finding.state != "refused":
        return finding
    return replace(finding, state="unknown", words=words)


async def _try(
    client: ModelClient, capability: Capability | None, prompting: Prompting
) -> tuple[State, str]:
    request = Request(
        turns=(_PROMPTS[capability],),
        media_folder=PROBES,
        system=prompting.system_prompt,
        max_tokens=MAX_TOKENS,
        prompting=prompting,
    )
    try:
        async with asyncio.timeout(TRY_LIMIT_S):
            await client.ask(request)
    except TimeoutError:
        return "unknown", f"no answer within {TRY_LIMIT_S:g} s"
    except RequestError as error:
        refused = error.kind == "status" and not error.retryable
        return "refused" if refused else "unknown", str(error)
    return "accepted", ""
