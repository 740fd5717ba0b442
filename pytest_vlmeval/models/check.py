"""What an endpoint takes beside text: tried with a small request each before a run."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.models.client import Request, RequestError
from pytest_vlmeval.records import PromptPart, Turn

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import ModelClient
    from pytest_vlmeval.settings.groups import Prompting

# An image, several of them in one prompt, the file of a video.
Capability = Literal["image", "images", "video"]
State = Literal["accepted", "refused", "unknown"]

NAMES: dict[Capability, str] = {
    "image": "images",
    "images": "several images in one prompt",
    "video": "videos",
}
# What to do where an endpoint refuses one.
REMEDIES: dict[Capability, str] = {
    "image": "Serve a vision-language model.",
    "images": "vLLM takes more with --limit-mm-per-prompt.",
    "video": "Without --vlm-video-url frames of each video are sent.",
}

PROBES = Path(__file__).parent / "probe"
# A server may compile what it needs at its first request.
TRY_LIMIT_S = 60.0
MAX_TOKENS = 8
# The first includes the second.
ORDER: tuple[Capability, ...] = ("images", "image", "video")
_TEXT = PromptPart(kind="text", text="Answer with one word: what is this?")
_IMAGE = PromptPart(kind="image", media="image.png", media_type="image/png")
_VIDEO = PromptPart(kind="video", media="video.mp4", media_type="video/mp4")
_PROMPTS: dict[Capability | None, Turn] = {
    None: (_TEXT,),
    "image": (_IMAGE, _TEXT),
    "images": (_IMAGE, _IMAGE, _TEXT),
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


def needed_for(images: int, videos: int) -> set[Capability]:
    """Return what a prompt with so many images and videos asks of an endpoint."""
    needed: set[Capability] = set()
    if images:
        needed.add("image")
    if images > 1:
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


# The datasets that need something of the endpoint.
Needs = Mapping["Capability", Sequence[str]]


def explain_lack(name: str, lacking: Sequence[Finding], needs: Needs) -> str:
    """Describe what an endpoint refuses, which datasets need it, and what to do."""
    shown = list(lacking)
    if any(finding.capability == "image" for finding in lacking):
        # What takes no image takes no several ones.
        shown = [finding for finding in lacking if finding.capability != "images"]
    lines = [
        f"    {NAMES[f.capability]}, which {', '.join(needs[f.capability])} "
        f"{'needs' if len(needs[f.capability]) == 1 else 'need'} ({f.words})"
        for f in shown
    ]
    remedies = " ".join(REMEDIES[finding.capability] for finding in shown)
    return "\n".join(
        [
            f"The endpoint {name} answers a prompt of text alone, but refuses:",
            *lines,
            f"{remedies} Give another with --vlm-api-base, leave these datasets out, "
            "or ask all the same with --vlm-media-check=warn.",
        ]
    )
