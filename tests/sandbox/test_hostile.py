"""Hostile answers, cells, archives and images: nothing runs, hangs or escapes."""

from __future__ import annotations

import csv
import io
import random
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.catalog import load_catalog
from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.chat import fit_image
from pytest_vlmeval.models.demo import open_image
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from pytest_vlmeval.sandbox.process import SandboxFault
from pytest_vlmeval.settings.groups import Prompting
from tests.support.conformance import card
from tests.support.hostile import LONG_BYTES, Hostile, corpus
from tests.support.hostile_scoring import (
    Cells,
    Fair,
    check_hostile,
    replies_of,
    score_with,
    seed_dataset,
)
from tests.support.run_fixtures import Project, endpoint, math_rows
from tests.support.sandbox_calls import run_inside
from tests.support.sandbox_tables import (
    CLASSES,
    FIXTURES,
    cell,
    choice_rows,
    describe,
    draw,
    prepare,
    rows_of,
    write_table,
)
from tests.support.server_fixtures import ServerProcess

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.hostile_scoring import Judge

    SandboxOf = Callable[[str], Sandbox]
needs_seeds = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no seed fixtures")
SECRET = {"DocVQA_TEST", "InfoVQA_TEST", "MLLMGuard_DS", "MMMU_TEST"}
NEEDING_A_JUDGE = {"LLaVABench", "MMBench-Video", "MMLongBench_DOC", "MMVet"}
# What needs environments of its own, and the larger of two that differ in nothing
# else, where each text is parsed as a formula.
WITH_ADDONS = {"COCO_VAL", "MMLongBench_DOC", "MathVision"}
# One of a kind gets texts of megabytes.
LONG = {
    "COCO_VAL",
    "DocVQA_VAL",
    "MMBench_DEV_EN",
    "MMMU_DEV_VAL",
    "MMStar",
    "MME",
    "MMVet",
    "MTVQA_TEST",
    "MathVision_MINI",
    "MathVista_MINI",
    "OCRBench",
    "TextVQA_VAL",
    "VCR_EN_EASY_100",
    "Video-MME",
}
NUMBERS = ["7317", "8317"]
RIGHT = ["7317"] * 2


def texts_for(name: str, marker: Path) -> list[Hostile]:
    """Give the texts for a dataset, the longest of them where it is one of a kind."""
    return corpus(marker, long_bytes=LONG_BYTES if name in LONG else 20_000)


def marked(names: Iterable[str], make: object) -> Iterator[object]:
    """Give parameters; datasets that only run with add-ons are marked so."""
    for name in names:
        alone = name in WITH_ADDONS or name.startswith("VCR_")
        marks = [pytest.mark.addons] if alone else []
        kind = getattr(make, "__name__", "").removesuffix("_for")
        yield pytest.param(name, make, marks=marks, id=f"{name}-{kind}")


# VCR's scoring asks no judge.
JUDGED = [name for name in card() if name not in SECRET and not name.startswith("VCR_")]
UNJUDGED = [name for name in card() if name not in SECRET | NEEDING_A_JUDGE]


@pytest.fixture(scope="module")
def catalog(
    sandbox_environment: SandboxEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, DatasetInfo]:
    """Give what is known of every dataset."""
    folder = tmp_path_factory.mktemp("catalog")
    return load_catalog(sandbox_environment, folder)


@pytest.fixture
def marker() -> Iterator[Path]:
    """Give the file that no text may make, with no digit or word in its name."""
    name = "".join(random.choices("jkqvwxz", k=16))
    path = Path(tempfile.gettempdir(), f"marker-{name}")
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.slow
def test_the_corpus_is_large_and_always_the_same(marker: Path) -> None:
    texts = corpus(marker, long_bytes=1_000)
    assert texts == corpus(marker, long_bytes=1_000)
    assert len(texts) >= 200
    assert len({text.kind for text in texts}) == 15
    assert len(set(texts)) >= len(texts) - 5
    assert max(len(text.text) for text in corpus(marker)) >= 10 * 2**20 - 10


@pytest.mark.slow
def test_the_marker_would_be_made(marker: Path) -> None:
    texts = [it.text for it in corpus(marker, long_bytes=9) if it.kind == "import"]
    eval(texts[0])
    assert marker.is_file()


COUNTS = {"category": ["a"] * 2, "split": ["val"] * 2}
OPTIONS = {"A": ["red"] * 2, "B": ["blue"] * 2, **COUNTS}
KINDS = ["Regular Text Recognition"] * 2
TYPED = {
    "question_type": ["free_form"] * 2,
    "answer_type": ["integer"] * 2,
    "choices": ["[]"] * 2,
    "precision": ["0"] * 2,
    "answer_option": NUMBERS,
    "skills": ["['arithmetic']"] * 2,
    "task": ["sums"] * 2,
}
# Name, class, references and further columns, fair answers: one of each way to score.
TABLES: list[tuple[str, str, Sequence[str], dict[str, list[str]], Sequence[str]]] = [
    ("MMStar", "ImageMCQDataset", "AB", OPTIONS, "AA"),
    ("Own_circular", "ImageMCQDataset", "AB", OPTIONS, "AA"),
    ("MMMU_DEV_VAL", "MMMUDataset", "AB", OPTIONS, "AA"),
    ("POPE", "ImageYORNDataset", ["Yes", "No"], COUNTS, ["Yes"] * 2),
    ("DocVQA_VAL", "ImageVQADataset", ["['seven']", "['okapi']"], {}, ["seven"]),
    ("ChartQA_TEST", "ImageVQADataset", NUMBERS, COUNTS, RIGHT),
    ("Own", "ImageVQADataset", ["seven", "eight"], {}, ["seven"] * 2),
    ("MathVision", "MathVision", NUMBERS, {"choices": ["[]"] * 2, **COUNTS}, RIGHT),
    ("MathVista_MINI", "MathVista", NUMBERS, TYPED, RIGHT),
    (
        "OCRBench",
        "OCRBench",
        ["['seven']", "['okapi']"],
        {"category": KINDS},
        ["seven"],
    ),
    (
        "MTVQA_TEST",
        "MTVQADataset",
        ["seven", "okapi"],
        {"category": ["FR"] * 2},
        ["seven"],
    ),
]


def own_tables(folder: Path) -> Iterator[Fair]:
    """Give small datasets that the test makes."""
    for name, class_name, references, columns, answers in TABLES:
        assert class_name in CLASSES
        plain = [
            {key: str(cell) for key, cell in row.items() if key != "image"}
            for row in rows_of(references, **columns)
        ]
        info = describe(folder / f"{name}.tsv", class_name)
        said = dict(zip("01", [*answers, "nothing"], strict=False))
        yield Fair(info, plain, said, {"0": 1.0, "1": 0.0})


@pytest.mark.slow
def test_hostile_answers_to_tables_of_the_test(
    sandbox: Sandbox, tmp_path: Path, marker: Path
) -> None:
    for fair in own_tables(tmp_path):
        texts = corpus(marker, long_bytes=20_000)
        if fair.info.class_name == "MathVision":
            texts = [it for it in texts if len(it.text) < 100]
        found, hostile = score_with(sandbox, tmp_path, fair, texts)
        check_hostile(fair, found, hostile)
    assert not marker.exists()


@pytest.mark.slow
def test_hostile_cells_of_tables_of_the_test(
    sandbox: Sandbox, tmp_path: Path, marker: Path
) -> None:
    for fair in own_tables(tmp_path):
        texts = [it for it in corpus(marker, long_bytes=9) if len(it.text) < 1_000]
        for error in Cells.of(fair, texts).score(sandbox, tmp_path):
            assert not error.startswith(f"Scoring {fair.info.name} "), error
        # What was refused left nothing behind: fair rows are scored as ever.
        found, _ = score_with(sandbox, tmp_path, fair, [])
        check_hostile(fair, found, {})
    assert not marker.exists()


def answers_for(name: str, marker: Path) -> tuple[list[Hostile], None]:
    """Give hostile answers, and no judge to read them."""
    return texts_for(name, marker), None


def replies_for(name: str, marker: Path) -> tuple[list[Hostile], Judge]:
    """Give answers that only a judge can read, and a judge of hostile replies."""
    texts = corpus(marker, long_bytes=20_000)
    if "MathVision" in name:
        texts = [it for it in texts if len(it.text) < 100]
    unreadable = [Hostile("unreadable", "I cannot tell")] * len(texts)
    return unreadable, replies_of(it.text for it in texts)


@pytest.mark.slow
@needs_seeds
@pytest.mark.parametrize(
    ("name", "make"),
    [*marked(UNJUDGED, answers_for), *marked(JUDGED, replies_for)],
)
def test_hostile_texts(
    sandbox_of: SandboxOf,
    catalog: dict[str, DatasetInfo],
    tmp_path: Path,
    marker: Path,
    name: str,
    make: Callable[[str, Path], tuple[list[Hostile], Judge | None]],
) -> None:
    fair = seed_dataset(catalog[name])
    texts, judge = make(name, marker)
    sandbox = sandbox_of(fair.info.class_name)
    found, hostile = score_with(sandbox, tmp_path, fair, texts, judge)
    if judge is None:
        check_hostile(fair, found, hostile)
    else:
        told = [each for each in found.verdicts if each.index in hostile]
        assert not [each for each in told if each.value]
    assert not marker.exists()


# One of each class that prepares images, and of each way to score in a class.
FAMILIES = [
    *("MMBench_DEV_EN", "CCBench", "MMStar", "MMT-Bench_VAL", "MMMU_DEV_VAL", "MME"),
    *("HallusionBench", "POPE", "OCRVQA_TEST", "TextVQA_VAL", "DocVQA_VAL"),
    *("ChartQA_TEST", "OCRBench", "MTVQA_TEST", "MathVista_MINI", "MathVision_MINI"),
    *("LLaVABench", "MMVet"),
    pytest.param("COCO_VAL", marks=pytest.mark.addons),
    pytest.param("VCR_EN_EASY_100", marks=pytest.mark.addons),
    pytest.param("MMLongBench_DOC", marks=pytest.mark.addons),
]
# Of the corpus each third text, so that every kind is there and in several columns.
EACH = 3

Row = dict[str, str]


def halve(rows: Sequence[Row], attempt: Callable[[Sequence[Row]], None]) -> list[str]:
    """Try all rows together, then by halves; give what is said of those that fail."""
    try:
        attempt(rows)
    except (VlmEvalError, SandboxFault) as error:
        if len(rows) == 1:
            return [str(error)]
        middle = len(rows) // 2
        return halve(rows[:middle], attempt) + halve(rows[middle:], attempt)
    return []


@pytest.mark.slow
@needs_seeds
@pytest.mark.parametrize("name", FAMILIES)
def test_hostile_cells_of_a_dataset(
    sandbox_of: Callable[[str], Sandbox],
    catalog: dict[str, DatasetInfo],
    tmp_path: Path,
    marker: Path,
    name: str,
) -> None:
    with (FIXTURES / "LMUData" / f"{name}.tsv").open(
        encoding="utf-8", newline=""
    ) as file:
        rows: list[Row] = list(csv.DictReader(file, delimiter="\t"))
    texts = [it for it in corpus(marker, long_bytes=9) if len(it.text) < 1_000][::EACH]
    # As a file of one's own: the published one has another checksum.
    info = describe(tmp_path / f"{name}.tsv", catalog[name].class_name)
    hostile = Cells.of(Fair(info, rows, {}, {}), texts).copies
    sandbox = sandbox_of(info.class_name)
    scored: set[str] = set()

    def attempt(copies: Sequence[Row]) -> None:
        write_table(tmp_path / f"{name}.tsv", [*rows, *copies])
        prepared = prepare(info, sandbox, tmp_path)
        samples = read_samples(prepared)
        # A row that cannot be asked says so by its number; the others are there.
        assert all(it.error is None or it.error.startswith("row ") for it in samples)
        asked = [it.index for it in samples if not it.error]
        answers = [(index, "A") for index in asked]
        score_in_sandbox(sandbox, prepared, answers, judge=replies_of(["8 8"]))
        scored.update(asked)

    refused = halve(hostile, attempt)
    for said in refused:
        # A reason, and neither a dead process nor one that took too long.
        assert not said.startswith((f"Preparing {name} ", f"Scoring {name} ")), said
    # Many cells are texts like any other; images and lists make their row useless.
    assert len(scored & {row["index"] for row in hostile}) > len(hostile) / 4, refused[
        :3
    ]
    assert not marker.exists()


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


SIDE = 50_000


def bomb(side: int = SIDE) -> bytes:
    """Make a real PNG of `side` x `side` black pixels, a bit each."""
    deflate = zlib.compressobj(9)
    line = bytes(1 + (side + 7) // 8)
    packed = b"".join(deflate.compress(line) for _ in range(side)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


@pytest.fixture(scope="module")
def png() -> bytes:
    """Give the bomb, which is far smaller than what is in it."""
    data = bomb()
    assert len(data) < 1_000_000
    return data


REASON = "the image cannot be read: it has 50000 x 50000 pixels, more than 175,000,000"


@pytest.mark.parametrize("kind", ["image", "list"])
def test_preparation_names_the_row(
    sandbox: Sandbox, tmp_path: Path, png: bytes, kind: str
) -> None:
    images = [cell(draw(1)), cell(png), cell(draw(2))]
    if kind == "list":
        images = [str([image, cell(draw(3))]) for image in images]
    table = write_table(tmp_path / "Bomb.tsv", choice_rows(images))
    prepared = prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path)
    first, broken, last = read_samples(prepared)
    assert first.error is last.error is None
    assert broken.error == f"row 2 (index 1): {REASON}"


def test_a_file_beside_a_table_of_one_s_own(
    project: Project, server: ServerProcess, png: bytes
) -> None:
    folder = project.pytester.path
    (folder / "bomb.png").write_bytes(png)
    (folder / "good.png").write_bytes(draw(1))
    rows = [
        {"question": "What?", "answer": "A", "image_path": f"{name}.png"}
        for name in ("good", "bomb")
    ]
    write_table(folder / "own.tsv", rows)
    project.pytester.makepyfile(
        test_own="from pytest_vlmeval import Benchmark\n"
        "class TestOwn(Benchmark):\n    datasets = ['own.tsv']\n"
    )
    result = project.ask(server.url)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines([f"*row 2 (index 2): {REASON}*"])
    assert len(server.requests()) == 1


def test_a_run_goes_on_with_the_other_rows(
    project: Project, server: ServerProcess, png: bytes
) -> None:
    rows = math_rows(4)
    rows[2]["image"] = cell(png)
    project.write_math(4, rows)
    result = project.run(*endpoint(server.url), "--vlm-image-size=64")
    result.stdout.fnmatch_lines([f"*row 3 (index 3): {REASON}*"])
    assert len(server.requests()) == 3


def test_the_demo_model_refuses_it(png: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the image of \d+ bytes cannot be decoded"):
        open_image(png)


@pytest.mark.parametrize("side", [12_000, SIDE])
def test_what_makes_images_smaller_refuses_it(side: int) -> None:
    # Of the smaller one Pillow only warns, which is an error in this session.
    with pytest.raises(ValueError, match="could be decompression bomb"):
        fit_image(bomb(side), "image/png", Prompting(image_size=64))
