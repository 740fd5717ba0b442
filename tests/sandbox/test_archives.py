"""Archives that repositories have: they stay in their folder and near their size."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.sandbox_calls import run_inside

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment


def hostile_tar() -> bytes:
    """Pack what would lie outside of the folder it is unpacked into."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name in ("../escaped", "/tmp/vlmeval-escaped", "a/../../escaped"):
            packed.addfile(_member(name, size=1), io.BytesIO(b"x"))
    return out.getvalue()


def good_tar() -> bytes:
    """Pack a file in a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        packed.addfile(_member("good/file", size=1), io.BytesIO(b"x"))
    return out.getvalue()


def linked_tar(kind: bytes, target: str) -> bytes:
    """Pack a link to the outside, and a file that would be written through it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        link = _member("link")
        link.type, link.linkname = kind, target
        packed.addfile(link)
        packed.addfile(_member("link/escaped", size=1), io.BytesIO(b"x"))
    return out.getvalue()


def _member(name: str, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def hostile_zip() -> bytes:
    """Pack the same for zip, and a symbolic link."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name in ("../escaped", "/tmp/vlmeval-escaped", "a/../../escaped"):
            packed.writestr(name, "x")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "..")
    return out.getvalue()


def declaring(size: int) -> bytes:
    """Pack a megabyte of zeros, and say that it is `size` bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(2**20))
    return out.getvalue().replace(struct.pack("<I", 2**20), struct.pack("<I", size))


def bomb_tar() -> bytes:
    """Pack the start of a file of 100 GB, which need not be there to be refused."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        packed.addfile(_member("zeros", size=100), io.BytesIO(bytes(100)))
        packed.fileobj.write(_member("more", size=10**11).tobuf())
        packed.fileobj.write(bytes(10_240))
    return out.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "bomb.zip": lambda: declaring(4 * 10**9),
    "bomb.tar.gz": bomb_tar,
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_archive_that_holds_far_more_than_it_is(
    sandbox_environment: SandboxEnvironment, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    (tmp_path / "lie.zip").write_bytes(declaring(9))
    (tmp_path / "good.zip").write_bytes(declaring(2**20))
    found = run_inside(sandbox_environment, UNPACK.format(name=name), tmp_path)
    size = (tmp_path / name).stat().st_size
    said = f"the sandbox does not unpack {tmp_path}/{name}: of {size:,} bytes it would"
    assert said.replace(f"{tmp_path}/", "") in found[0].replace(f"{tmp_path}/", "")
    assert "over 200 times as many" in found[0]
    assert "over 200 times as many" in found[1]
    # One that says less than it holds makes no more than it says.
    assert "BadZipFile" in found[2]
    assert found[3] == "nothing"
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("inside*/*")}
    assert sizes.pop("zeros") == 2**20
    assert not sizes


UNPACK = """
import shutil, tarfile, zipfile
def unpack(name, into):
    opened = zipfile.ZipFile(name) if name.endswith("zip") else tarfile.open(name)
    with opened:
        opened.extractall(into)
print(json.dumps([
    attempt(lambda: unpack("{name}", "inside")),
    attempt(lambda: shutil.unpack_archive("{name}", "inside")),
    attempt(lambda: unpack("lie.zip", "inside")),
    attempt(lambda: unpack("good.zip", "inside-good")),
]))
"""
ARCHIVES: dict[str, Callable[[], bytes]] = {
    "slip.tar.gz": hostile_tar,
    "symlink.tar": lambda: linked_tar(tarfile.SYMTYPE, ".."),
    "absolute.tar": lambda: linked_tar(tarfile.SYMTYPE, "/tmp"),
    "hardlink.tar": lambda: linked_tar(tarfile.LNKTYPE, "../escaped"),
    "device.tar": lambda: linked_tar(tarfile.CHRTYPE, ""),
    "slip.zip": hostile_zip,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_stays_in_its_folder(
    sandbox_environment: SandboxEnvironment, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(ARCHIVES[name]())
    (tmp_path / "good.tar").write_bytes(good_tar())
    # The ways in which ms-vlmeval's classes unpack.
    code = f"""
import shutil, tarfile, zipfile
from pathlib import Path
name = {name!r}
def unpack(name):
    opened = zipfile.ZipFile(name) if name.endswith("zip") else tarfile.open(name)
    with opened:
        opened.extractall("inside")
print(json.dumps([
    attempt(lambda: unpack(name)),
    attempt(lambda: shutil.unpack_archive(name, "inside")),
    attempt(lambda: unpack("good.tar")),
]))
"""
    found = run_inside(sandbox_environment, code, tmp_path)
    if name.endswith("zip"):
        assert found[0] == "nothing"
    else:
        assert "Error: " in found[0], found
        assert "Error: " in found[1], found
    assert found[2] == "nothing"
    assert (tmp_path / "inside" / "good" / "file").read_bytes() == b"x"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {name, "good.tar", "inside"}
    )
    assert not Path("/tmp/vlmeval-escaped").exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
