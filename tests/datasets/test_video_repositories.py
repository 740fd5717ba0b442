"""Repositories of videos that are not as published, or hostile; and mirrors of them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.prepare import read_samples
from tests.support.video_sets import (
    MMBENCH_VIDEO,
    VIDEO_MME,
    VideoUser,
    mmbench_video,
    video_mme,
    videos,
    write_files,
)

pytestmark = pytest.mark.addons


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
