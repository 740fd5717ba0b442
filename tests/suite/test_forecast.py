"""Sessions that download: summed up ahead, refused, or stopped after the download."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.file_server import FileServer
from tests.support.run_fixtures import Project

MODULE = """
import pytest
from pytest_vlmeval import Benchmark

class TestFirst(Benchmark):
    datasets = ["MathVision_MINI", "MMStar"]

@pytest.mark.core
class TestSecond(Benchmark):
    datasets = ["POPE"]

@pytest.mark.vlm("AI2D_TEST")
def test_own(vlm_sample):
    vlm_sample.check()
"""
NAMES = ("MathVision_MINI", "MMStar", "POPE", "AI2D_TEST")


def table_bytes(name: str) -> bytes:
    """Return a table of 1 MB: what is no table is refused."""
    return b"index\tquestion\tanswer\n0\t" + name.encode() + b"x" * 1_000_000 + b"\tA\n"


@pytest.fixture
def benchmarks(project: Project, file_server: FileServer) -> Project:
    """Give a project with four datasets, all on a server of 1 MB files."""
    for name in NAMES:
        file_server.files[f"{name}.tsv"] = table_bytes(name)
    project.pytester.makeini("[pytest]\nmarkers = core")
    project.pytester.mkdir("deep")
    (project.pytester.path / "deep" / "test_all.py").write_text(MODULE)
    return project


def mirror(server: FileServer, *more: str) -> list[str]:
    """Return the arguments of a session that takes its files from the server."""
    return [
        "--vlm-model=tiny-vlm",
        "--vlm-api-base=http://127.0.0.1:9/v1",
        f"--vlm-data-mirror={server.url}",
        "--vlm-allow-modified-data",
        *more,
    ]


def heads(server: FileServer) -> set[str]:
    """Return the datasets whose size was asked for."""
    return {Path(path).stem for path in server.asked("HEAD")}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], set(NAMES)),
        (["deep/test_all.py"], set(NAMES)),
        (["deep/test_all.py::TestSecond"], {"POPE"}),
        (["deep/test_all.py::TestFirst::test_sample[MMStar-3]"], {"MMStar"}),
        (["-m", "core"], {"POPE"}),
        (["-k", "test_own"], {"AI2D_TEST"}),
        (["--vlm-data=MMStar,POPE"], {"MMStar", "POPE"}),
        (["--collect-only"], set(NAMES)),
        (["-n2"], set(NAMES)),
    ],
)
def test_too_much_is_a_usage_error_before_the_first_byte(
    benchmarks: Project,
    file_server: FileServer,
    arguments: list[str],
    names: set[str],
) -> None:
    result = benchmarks.run(
        *mirror(file_server, "--vlm-download-max-gb=0.0001", *arguments)
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert heads(file_server) == names
    assert not file_server.asked()
    noun = "The selected datasets have"
    result.stderr.fnmatch_lines(
        [f"ERROR: {noun} {len(names)} MB to download, more than *=0.0001:"]
    )
    result.stderr.fnmatch_lines_random([f" *1 MB  {name}" for name in names])


def test_what_is_too_much_fits_by_what_the_message_advises(
    benchmarks: Project, file_server: FileServer
) -> None:
    limit = ("--vlm-download-max-gb=0.0015", "--collect-only")
    refused = benchmarks.run(*mirror(file_server, *limit))
    refused.stderr.fnmatch_lines(
        ["Choose fewer datasets with -m core (the usual eight), -k or --vlm-data=*"]
    )
    assert not file_server.asked()
    for fewer in (
        [*limit, "-m", "core"],
        [*limit, "-k", "TestSecond"],
        [*limit, "--vlm-data=POPE"],
        ["--vlm-download-max-gb=1", "--collect-only"],
    ):
        result = benchmarks.run(*mirror(file_server, *fewer))
        assert "more than --vlm-download-max-gb" not in result.stderr.str(), fewer
        assert "/POPE.tsv" in file_server.asked()
        file_server.requests.clear()
        (benchmarks.data_root / "POPE.tsv").unlink()


def test_a_word_with_a_digit_is_no_reason_to_download(
    benchmarks: Project, file_server: FileServer
) -> None:
    """It may be part of an index, and is looked for only where that costs nothing."""
    table = json.dumps({"question": "What is it?", "answer": "A cat"})
    (benchmarks.pytester.path / "p6.jsonl").write_text(table)
    result = benchmarks.run(*mirror(file_server, "-k", "p6 or t7"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.errlines[0] == (
        "ERROR: -k 'p6 or t7': p6 and t7 are neither datasets nor tests. To look for "
        "them in the indexes of samples, 4 datasets that are not on disk would be "
        "downloaded. p6.jsonl is a table: run it with --vlm-data=p6.jsonl. Name what "
        "is meant, as in -k 'p6 or t7' --vlm-data=NAME. `pytest --vlm-list` lists the "
        "names."
    )
    result = benchmarks.run(*mirror(file_server, "-k", "POPE7", "--collect-only"))
    assert result.errlines[0] == (
        "ERROR: -k POPE7: POPE7 is neither a dataset nor a test. To look for it in the "
        "indexes of samples, 4 datasets that are not on disk would be downloaded. Did "
        "you mean POPE? Name what is meant, as in -k POPE7 --vlm-data=NAME. `pytest "
        "--vlm-list` lists the names."
    )
    assert not file_server.requests
    # What is said, and what names a dataset or does not depend on an index.
    for keyword, data, names in (
        ("t7", "--vlm-data=POPE", {"POPE"}),
        ("POPE and t7", "", {"POPE"}),
        ("t7 and POPE", "", {"POPE"}),
        ("not t7 and TestSecond", "", {"POPE"}),
    ):
        benchmarks.run(*mirror(file_server, "-k", keyword, *filter(None, [data])))
        assert {each.strip("/") for each in file_server.asked()} == {
            f"{name}.tsv" for name in names
        }
        file_server.requests.clear()
        (benchmarks.data_root / "POPE.tsv").unlink()
    made = benchmarks.pytester.path / "deep" / "test_all.py"
    made.write_text(f"{MODULE}\nclass TestOther(Benchmark):\n    datasets = ['*']\n")
    result = benchmarks.run(
        "--vlm-data=p6.jsonl", "--vlm-model=tiny-vlm", "--collect-only", "-q"
    )
    result.stdout.fnmatch_lines(["*::TestOther::test_sample[[]p6-1]"])
    # What is on disk is looked through.
    for name in NAMES:
        (benchmarks.data_root / f"{name}.tsv").write_bytes(table_bytes(name))
    result = benchmarks.run(*mirror(file_server, "-k", "t7"))
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["vlmeval: -k t7 matches no test. It selects*"])
    assert not file_server.requests


def test_it_is_said_what_is_to_be_downloaded(
    benchmarks: Project, file_server: FileServer
) -> None:
    folder = benchmarks.pytester.mkdir("mirror")
    (folder / "POPE.tsv").write_bytes(b"x" * 2_000_000)
    # A folder is no network.
    more = [f"--vlm-data-mirror={folder}", "--vlm-offline", "--vlm-data=MMStar,POPE"]
    result = benchmarks.run(*mirror(file_server), *more)
    result.stdout.fnmatch_lines(
        ["vlmeval: to download: 1 dataset, 2 MB; of unknown size: MMStar"]
    )


def test_nothing_is_asked_of_the_network_when_offline(
    benchmarks: Project, file_server: FileServer
) -> None:
    result = benchmarks.run(*mirror(file_server, "--vlm-offline"))
    assert not file_server.requests
    result.stdout.fnmatch_lines(["MMStar: *: --vlm-offline is set. *"])


def test_modules_that_cannot_be_imported_are_left_to_pytest(
    benchmarks: Project, file_server: FileServer
) -> None:
    (benchmarks.pytester.path / "test_broken.py").write_text("import no_such_module")
    (benchmarks.pytester.path / "test_skipped.py").write_text(
        "import pytest\npytest.skip('not here', allow_module_level=True)"
    )
    result = benchmarks.run(*mirror(file_server, "--vlm-data=POPE"))
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1, skipped=1)


def test_fixtures_of_a_module_are_set_up_once(
    project: Project,
) -> None:
    project.pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(autouse=True, scope="module")
        def once():
            print("once")

        def setup_module():
            print("set up")

        class TestDemo:
            @pytest.fixture
            def named(self):
                return "named"

            @pytest.mark.vlm("DemoChoice")
            def test_it(self, vlm_sample, named, once):
                assert named == "named"
        """
    )
    result = project.run("--vlm-model=demo", "--vlm-limit=2", "-s")
    result.assert_outcomes(passed=2)
    text = result.stdout.str()
    assert text.count("once\n") == text.count("set up") == 1


ORDERED = """
import pytest
from pytest_vlmeval import Benchmark

def test_before():
    pass

class TestDemo(Benchmark):
    datasets = ["DemoYesNo", "DemoChoice"]

    def test_own(self):
        pass

@pytest.mark.vlm("DemoOpen")
@pytest.mark.parametrize("style", ["a", "b"])
def test_styles(vlm_score, style):
    pass

def test_after():
    pass
"""


def collected(project: Project, *arguments: str) -> list[str]:
    """Return the names of the items that are collected, in their order."""
    more = ["--vlm-model=demo", "--vlm-limit=2", "--collect-only", "-q", *arguments]
    lines = project.run(*more).outlines
    return [line.partition("::")[2] for line in lines if line.startswith("test_order")]


def test_items_lie_where_their_test_does(project: Project) -> None:
    project.pytester.makepyfile(test_order=ORDERED)
    found = collected(project)
    names = ("DemoYesNo", "DemoChoice")
    samples = [
        [each for each in found if f"test_sample[{name}-" in each] for name in names
    ]
    assert [len(each) for each in samples] == [2, 2]
    assert found == [
        "test_before",
        *(each for both in samples for each in both),
        *(f"TestDemo::test_score[{name}]" for name in names),
        "TestDemo::test_own",
        "test_styles[DemoOpen-a]",
        "test_styles[DemoOpen-b]",
        "test_after",
    ]


def test_items_that_are_named_are_collected_alone(project: Project) -> None:
    project.pytester.makepyfile(test_order=ORDERED)
    first, second = [each for each in collected(project) if "[DemoChoice-" in each][:2]
    named = [second, "test_styles[DemoOpen-b]", "test_after"]
    assert collected(project, *(f"test_order.py::{each}" for each in named)) == named
    both = collected(project, *(f"test_order.py::{each}" for each in (second, first)))
    assert sorted(both) == [first, second]
    absent = first.replace("]", "00]")
    result = project.run("--vlm-model=demo", f"test_order.py::{absent}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.errlines[:2] == [
        f"ERROR: not found: test_order.py::{absent}",
        "(no match in any of [<Class TestDemo>])",
    ]


def test_download_only(benchmarks: Project, file_server: FileServer) -> None:
    arguments = mirror(file_server, "--vlm-download-only", "--vlm-data=MMStar,POPE")
    result = benchmarks.run(*arguments[2:])
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "vlmeval: to download: 2 datasets, 2 MB",
            f"vlmeval: MMStar: {benchmarks.data_root / 'MMStar.tsv'}",
            f"vlmeval: POPE: {benchmarks.data_root / 'POPE.tsv'}",
            "*no tests ran*",
        ]
    )
    assert file_server.asked() == ["/MMStar.tsv", "/POPE.tsv"]
    # As the refusal of several processes advises; without -n it ran above.
    again = benchmarks.run(*arguments, "-n", "0")
    assert again.ret == pytest.ExitCode.OK
    again.stdout.no_fnmatch_line("*to download*")
    assert len(file_server.asked()) == 2
    assert not benchmarks.store.exists()


def test_download_only_goes_on_after_a_failure(
    benchmarks: Project, file_server: FileServer
) -> None:
    del file_server.files["MMStar.tsv"]
    arguments = mirror(file_server, "--vlm-download-only", "-k", "not test_own")
    result = benchmarks.run(*arguments)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "vlmeval: to download: 2 datasets, 2 MB; of unknown size: MMStar",
            f"vlmeval: MathVision_MINI: {benchmarks.data_root}/MathVision_MINI.tsv",
            "vlmeval: MMStar: its file is missing and cannot be downloaded from "
            f"{file_server.url}/MMStar.tsv: the server answered 404 Not Found. *",
            f"vlmeval: POPE: {benchmarks.data_root / 'POPE.tsv'}",
        ]
    )


def test_download_only_reports_a_module_that_cannot_be_imported(
    benchmarks: Project, file_server: FileServer
) -> None:
    (benchmarks.pytester.path / "test_broken.py").write_text("import no_such_module")
    result = benchmarks.run(
        *mirror(file_server, "--vlm-download-only", "--vlm-data=POPE")
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            f"vlmeval: POPE: {benchmarks.data_root / 'POPE.tsv'}",
            "*ERROR collecting test_broken.py*",
            "E   ModuleNotFoundError: No module named 'no_such_module'",
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vlm-data=MMStart"], "--vlm-data=MMStart: no selected benchmark has this*"),
        (["--vlm-download-max-gb=0"], "The selected datasets have 4 MB to download*"),
        (
            ["-n2"],
            "--vlm-download-only works in one process: leave -n out, or give -n 0.",
        ),
    ],
)
def test_download_only_refuses(
    benchmarks: Project, file_server: FileServer, arguments: list[str], message: str
) -> None:
    result = benchmarks.run(*mirror(file_server, "--vlm-download-only", *arguments))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert not file_server.asked()
