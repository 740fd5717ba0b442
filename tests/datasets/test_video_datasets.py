"""Video datasets, from a hub's repository, however it looks, to prompts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.sandbox.process import Sandbox
from tests.support.sandbox_tables import media_of
from tests.support.video_sets import (
    FPS,
    FRAMES,
    MMBENCH_VIDEO,
    VIDEO_MME,
    VideoUser,
    mmbench_video,
    prompts,
    video_mme,
    videos,
    write_files,
)

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

pytestmark = pytest.mark.addons

UPSTREAM = Path(__file__).parents[1] / "support" / "upstream_videos.py"


def kinds(prompt: list[tuple[str, Any]]) -> list[str]:
    """Give the kinds of a prompt's parts."""
    return [kind for kind, _ in prompt]


def test_video_mme_from_the_hub_once(user: VideoUser) -> None:
    user.hub.repositories[VIDEO_MME] = video_mme(videos("one", "two"))
    prepared = user.prepare("Video-MME")
    assert (prepared.sample_count, prepared.modified) == (4, False)
    assert prepared.notes == ("8 frames per video",)
    first, _, third, _ = prompts(prepared)
    assert kinds(first) == ["image"] * 8 + ["text"] * 2
    assert first[-1][1] == "Question: Question 0?\nA. red.\nB. blue.\nAnswer: "
    # The frames of a video are stored once, whoever asks about it.
    assert len(media_of(prepared)) == 16
    assert first[0][1] != third[0][1]
    samples = read_samples(prepared)
    assert [s.reference for s in samples] == ["A", "B", "A", "B"]
    assert {s.category for s in samples} == {"OCR Problems"}
    assert sorted(user.hub.downloads()) == sorted(user.hub.repositories[VIDEO_MME])
    assert user.lines == [
        f"looking for the videos of Video-MME in {user.snapshot(VIDEO_MME)}; what is "
        "packed there is unpacked, once"
    ]
    # Neither the hub nor the sandbox is asked again.
    user.hub.requests.clear()
    nobody = Sandbox(Path("/nonexistent/python"))
    assert user.prepare("Video-MME", sandbox=nobody) == prepared
    assert not user.hub.requests
    # Nor for another way to show the same videos, but for cutting its frames.
    more = user.prepare("Video-MME", fps=1)
    assert not user.hub.requests
    assert more.fingerprint != prepared.fingerprint
    assert more.notes == ("1 frame per second of video",)
    assert kinds(prompts(more)[0]).count("image") == FRAMES // FPS


def test_modelscope_is_asked_where_it_is_preferred(user: VideoUser) -> None:
    user.hub.repositories[VIDEO_MME] = video_mme(videos("one"))
    prepared = user.prepare("Video-MME_8frame", first="modelscope")
    assert len(media_of(prepared)) == 8
    assert all(path.startswith("/api/v1/") for _, path in user.hub.requests)
    assert any((user.folder / "ms" / "datasets").iterdir())
    assert not (user.folder / "hf").exists()


def prompts_of_upstream(task: Mapping[str, object], python: Path, folder: Path) -> Any:
    """Give the prompts that ms-vlmeval makes of what is in the hub's cache."""
    (folder / "task.json").write_text(json.dumps(task))
    subprocess.run(
        [python, UPSTREAM, "task.json", "found.json"],
        cwd=folder,
        check=True,
        capture_output=True,
        env={
            **os.environ,
            "VLMEVALKIT_USE_MODELSCOPE": "0",
            "HF_HUB_OFFLINE": "1",
            "LMUData": str(folder),
        },
    )
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize(
    ("name", "settings", "video_url"),
    [
        ("Video-MME_8frame", {"dataset": "Video-MME", "nframe": 8}, False),
        ("Video-MME_0.5fps", {"dataset": "Video-MME", "fps": 0.5}, False),
        (
            "Video-MME_8frame_subs",
            {"dataset": "Video-MME", "nframe": 8, "use_subtitle": True},
            False,
        ),
        ("Video-MME_8frame", {"dataset": "Video-MME", "nframe": 8}, True),
        ("MMBench_Video_8frame_nopack", {"nframe": 8}, False),
        ("MMBench_Video_1fps_nopack", {"fps": 1.0}, False),
    ],
)
def test_prompts_equal_those_of_upstream(
    user: VideoUser,
    video_environment: SandboxEnvironment,
    tmp_path: Path,
    name: str,
    settings: dict[str, Any],
    video_url: bool,
) -> None:
    films = videos("red", "blue")
    user.hub.repositories[VIDEO_MME] = video_mme(films)
    user.hub.repositories[MMBENCH_VIDEO] = mmbench_video(films)
    prepared = user.prepare(name, video_url=video_url, modified="MMBench" in name)
    task = {
        "module": prepared.info.module,
        "class_name": prepared.info.class_name,
        "settings": settings,
        "video_llm": video_url,
    }
    expected = prompts_of_upstream(task, video_environment.python, tmp_path)
    ours = [
        [
            [kind, value if kind == "text" else hashlib.sha256(value).hexdigest()]
            for kind, value in prompt
        ]
        for prompt in prompts(prepared)
    ]
    # An empty text says nothing, and some servers refuse it.
    assert ours == [[part for part in row if part[1]] for row in expected]
    assert any(kind != "text" for kind, _ in ours[0])


def test_subtitles_stand_in_the_prompt(user: VideoUser) -> None:
    user.hub.repositories[VIDEO_MME] = video_mme(videos("one"))
    first, _ = prompts(user.prepare("Video-MME_8frame_subs"))
    assert "Hello there\nHello there" in first[8][1]


def test_the_file_itself_is_linked(user: VideoUser) -> None:
    films = videos("one")
    user.hub.repositories[VIDEO_MME] = video_mme(films)
    prepared = user.prepare("Video-MME", video_url=True)
    assert prepared.notes == ("videos sent as their files",)
    first, second = prompts(prepared)
    assert first[0] == second[0] == ("video", films["one"])
    (name,) = media_of(prepared)
    assert name == hashlib.sha256(films["one"]).hexdigest() + ".mp4"
    assert (prepared.folder / "media" / name).stat().st_nlink == 2
    (sample, _) = read_samples(prepared)
    assert sample.prompt[0][0].media_type == "video/mp4"
    assert user.prepare("Video-MME").fingerprint != prepared.fingerprint


def test_all_questions_about_a_video_in_one_prompt(user: VideoUser) -> None:
    user.hub.repositories[MMBENCH_VIDEO] = mmbench_video(videos("red", "blue"))
    prepared = user.prepare("MMBench_Video_8frame_pack", modified=True)
    samples = read_samples(prepared)
    assert [(s.index, s.reference) for s in samples] == [
        ("blue", "So"),
        ("red", "A box | Left"),
    ]
    _, red = prompts(prepared)
    assert kinds(red) == ["text", *["image"] * 8, "text"]
    assert red[-1][1] == ('Questions: \n{"0": "What?", "1": "Where?"}\nAnswers: \n')
    assert user.fail("MMBench_Video_8frame_pack", modified=True, video_url=True) == (
        "MMBench_Video_8frame_pack asks all questions about a video at once, which "
        "ms-vlmeval does with frames only. Leave out --vlm-video-url, or choose a "
        "dataset whose name does not end in _pack."
    )
    other = user.prepare("MMBench_Video_8frame_nopack", modified=True, video_url=True)
    assert other.notes == ("videos sent as their files",)


def test_a_broken_and_a_missing_video_are_samples_with_an_error(
    user: VideoUser,
) -> None:
    films = {**videos("good"), "broken": b"no video at all" * 100}
    repository = video_mme({**films, "gone": b""})
    packed = video_mme(films)
    repository["videos_chunked_01.zip"] = packed["videos_chunked_01.zip"]
    user.hub.repositories[VIDEO_MME] = repository
    prepared = user.prepare("Video-MME")
    errors = [sample.error for sample in read_samples(prepared)]
    folder = user.snapshot(VIDEO_MME) / "video"
    assert errors[:2] == [None, None]
    assert str(errors[2]).startswith(
        f"row 3 (index 2): the video {folder / 'broken.mp4'} cannot be decoded: "
    )
    assert errors[4] == (
        f"row 5 (index 4): the video {folder / 'gone.mp4'} is not there"
    )
    sent = read_samples(user.prepare("Video-MME", video_url=True))
    assert sent[2].error is None
    assert sent[4].error == (
        f"row 5 (index 4): the video {folder / 'gone.mp4'} cannot be sent: it is not "
        "there"
    )


def test_a_table_that_is_not_the_published_one(user: VideoUser) -> None:
    files = mmbench_video(videos("red", "blue"))
    user.hub.repositories[MMBENCH_VIDEO] = files
    checksum = hashlib.md5(files["MMBench-Video.tsv"]).hexdigest()
    message = user.fail("MMBench-Video")
    table = user.snapshot(MMBENCH_VIDEO) / "MMBench-Video.tsv"
    assert message == (
        f"MMBench-Video: {table} is not the published file: its MD5 is {checksum}, the "
        f"published one 98f7df3eb1007fc375ea6fe88a98e2ff. Remove {table.resolve()}, "
        "its content, to have it downloaded again, or evaluate it as it is with "
        "--vlm-allow-modified-data; its score is then marked as modified."
    )
    prepared = user.prepare("MMBench-Video", modified=True)
    assert (prepared.modified, prepared.checksum) == (True, checksum)
    # What was damaged on disk is downloaded again.
    table.write_bytes(files["MMBench-Video.tsv"].replace(b"A box", b"A fox"))
    removed = re.search(r"Remove (\S+), its content, to", user.fail("MMBench-Video"))
    assert removed is not None
    Path(removed[1]).unlink()
    user.hub.requests.clear()
    assert user.prepare("MMBench-Video", modified=True).checksum == checksum
    assert user.hub.downloads() == ["MMBench-Video.tsv"]


def test_a_table_that_cannot_be_made_anew(user: VideoUser) -> None:
    files = video_mme(videos("one"))
    del files["videomme/test-00000-of-00001.parquet"]
    files["Video-MME.tsv"] = b"index\tvideo_path\n0\tvideo/one.mp4\n"
    user.hub.repositories[VIDEO_MME] = files
    message = user.fail("Video-MME")
    assert (
        "the published one 85bdd91f9b29a99354c23b97ab7c113c, and ms-vlmeval" in message
    )
    assert "cannot make it anew (FileNotFoundError: " in message
    table = (user.snapshot(VIDEO_MME) / "Video-MME.tsv").resolve()
    assert message.endswith(
        f"Remove {table}, its content, to have it downloaded again, or evaluate it as "
        "it is with --vlm-allow-modified-data; its score is then marked as modified."
    )
    # The hub has no other, but it is asked again, whatever became of the file here.
    table.write_bytes(b"damaged")
    assert "the published one" in user.fail("Video-MME")
    assert table.read_bytes() == b"damaged"
    table.unlink()
    user.fail("Video-MME")
    assert table.read_bytes() == files["Video-MME.tsv"]


def test_a_repository_that_lacks_files(user: VideoUser) -> None:
    files = video_mme(videos("one"))
    del files["subtitle.zip"]
    user.hub.repositories[VIDEO_MME] = files
    message = user.fail("Video-MME")
    folder = user.snapshot(VIDEO_MME)
    assert message.startswith(
        f"Video-MME: ms-vlmeval cannot use what is in {folder} (FileNotFoundError: "
    )
    assert message.endswith(
        "If a download or its unpacking was cut short there, remove that folder and "
        "run the same command again."
    )
    # What was unpacked before the failure would be taken for all of it.
    assert not (folder / "video").exists()
    user.hub.repositories[VIDEO_MME] = video_mme(videos("one"))
    shutil.rmtree(folder.parents[1])
    assert user.prepare("Video-MME").sample_count == 2


class Hostile:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("false",)


@pytest.mark.parametrize(
    ("films", "reason"),
    [
        (Hostile(), "is not a file of videos: it wants posix.system."),
        ({"red": Hostile()}, "is not a file of videos: it wants posix.system."),
        (
            {"../red": b"mp4"},
            "is not a file of videos: it should hold bytes by plain names, and nothing "
            "else.",
        ),
        (
            {"red": "text"},
            "is not a file of videos: it should hold bytes by plain names, and nothing "
            "else.",
        ),
    ],
)
def test_a_hostile_pickle(user: VideoUser, films: object, reason: str) -> None:
    user.hub.repositories[MMBENCH_VIDEO] = mmbench_video(films)
    message = user.fail("MMBench-Video", modified=True)
    path = user.snapshot(MMBENCH_VIDEO) / "video_pkl" / "video_0.pkl"
    assert message == f"{path} {reason}"


def test_a_mirror_may_link_to_what_a_hub_s_client_has(
    user: VideoUser, tmp_path: Path
) -> None:
    user.hub.repositories[VIDEO_MME] = video_mme(videos("one"))
    user.prepare("Video-MME")
    mirror = tmp_path / "mirror"
    (mirror / VIDEO_MME).parent.mkdir(parents=True)
    (mirror / VIDEO_MME).symlink_to(user.snapshot(VIDEO_MME))
    prepared = user.prepare("Video-MME", mirror=mirror, offline=True)
    assert [sample.error for sample in read_samples(prepared)] == [None] * 2


def test_a_folder_as_mirror(user: VideoUser, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    write_files(mirror / VIDEO_MME, video_mme(videos("one")))
    before = sorted(mirror.rglob("*"))
    for path in [*before, mirror / VIDEO_MME, mirror]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    prepared = user.prepare("Video-MME", mirror=mirror, offline=True)
    assert prepared.sample_count == 2
    assert sorted(mirror.rglob("*")) == before
    assert not user.hub.requests
    assert user.fail("MMBench-Video", mirror=mirror) == (
        f"MMBench-Video: --vlm-data-mirror={mirror} has no folder "
        f"{MMBENCH_VIDEO}. Put the files of that repository there, or leave the option "
        "out."
    )
    mirror.chmod(0o755)
    files = mmbench_video(videos("red", "blue"))
    write_files(mirror / MMBENCH_VIDEO, files)
    assert (
        f"Put the published file into {mirror / MMBENCH_VIDEO}, or evaluate it as it is"
    ) in user.fail("MMBench-Video", mirror=mirror)
    there = user.prepare("MMBench-Video", mirror=mirror, modified=True)
    assert not user.hub.requests
    user.hub.repositories[MMBENCH_VIDEO] = files
    downloaded = user.prepare("MMBench-Video", modified=True)
    assert downloaded.checksum == there.checksum
    assert "MMBench-Video.tsv" in user.hub.downloads()
