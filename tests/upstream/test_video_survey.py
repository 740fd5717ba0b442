"""Every video dataset of ms-vlmeval, prepared from invented repositories.

What cannot be prepared is listed with its reason, and this fails when that changes.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import parts_of
from pytest_vlmeval.sandbox.environment import HUB, VIDEO, addons_for
from pytest_vlmeval.sandbox.process import Sandbox, SandboxFault
from tests.support.constant_answers import ends_of_classes
from tests.support.run_fixtures import environment_with
from tests.support.video_layouts import repositories, tables
from tests.support.video_sets import VideoUser, write_files

pytestmark = pytest.mark.addons

# How the messages begin or go on that say why a dataset cannot be prepared.
SOUND = "its prompt has a part of the type audio"
EXCEPTIONS = {
    **dict.fromkeys(
        (
            f"AV-SpeakerBench_audio_only_{each}"
            for each in ("8frame", "16frame", "1fps")
        ),
        SOUND,
    ),
    **dict.fromkeys(
        (
            f"WorldSense_{each}_audio"
            for each in ("8frame", "32frame", "1fps", "0.5fps")
        ),
        SOUND,
    ),
}


def prepare_invented(
    user: VideoUser, name: str, sandbox: Sandbox, first: str = "huggingface"
) -> str:
    """Prepare a dataset; give why it, or one of its samples, cannot be."""
    mirror = user.folder / "mirror"
    try:
        prepared = user.prepare(
            name,
            mirror=mirror,
            offline=True,
            modified=True,
            sandbox=sandbox,
            first=first,
        )
    except VlmEvalError as error:
        return str(error)
    except SandboxFault as fault:
        return f"fault: {fault}"
    samples = read_samples(prepared)
    kinds = {part.kind for sample in samples for part in parts_of(sample.prompt)}
    errors = [sample.error for sample in samples if sample.error]
    return errors[0] if errors else "" if kinds == {"image", "text"} else str(kinds)


@pytest.mark.parametrize(
    "addons",
    [VIDEO, VIDEO | HUB | {"cv2"}],
    ids=lambda addons: "-".join(sorted(addons)),
)
def test_every_video_dataset_prepares_or_says_why_not(
    user: VideoUser, addons: frozenset[str]
) -> None:
    infos = [
        info
        for info in user.catalog.values()
        if info.modality == "video" and addons_for(info) == addons
    ]
    layouts = {**repositories(), "": tables(info.url for info in infos if info.url)}
    for repository, files in layouts.items():
        write_files(user.folder / "mirror" / repository, files)
    sandbox = Sandbox(environment_with(addons).python)
    assert len(infos) == (5 if "cv2" in addons else 257)
    reasons = {info.name: prepare_invented(user, info.name, sandbox) for info in infos}
    for info in ends_of_classes(infos):
        reason = prepare_invented(user, info.name, sandbox, "modelscope")
        reasons[f"{info.name} of ModelScope"] = reason
    sandbox.close()
    surprises = [
        f"{name}: {reason or 'prepared'}"
        for name, reason in reasons.items()
        if (known := EXCEPTIONS.get(name.split()[0], "")) not in reason
        or bool(reason) != bool(known)
    ]
    assert not surprises, "\n".join(surprises)
