"""Sessions with a judge: their benchmark, their rows and who judged them."""

from __future__ import annotations

from tests.support.run_fixtures import Project, write_table
from tests.support.server_fixtures import ServerProcess

IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJ"
    "RU5ErkJggg=="
)


def write_choices(project: Project, name: str = "MMStar") -> None:
    """Put four questions in place; A is right. A judge makes it three of four."""
    rows = [
        {
            "index": str(number),
            "question": f"Which <{number}>?",
            "A": "red",
            "B": "blue",
            "answer": "A",
            "category": "colour",
            "image": IMAGE,
        }
        for number in range(1, 5)
    ]
    write_table(project.data_root / f"{name}.tsv", rows)
    project.pytester.makepyfile(test_choices=benchmark(name))


def benchmark(name: str) -> str:
    return f"""
from pytest_vlmeval import Benchmark

class TestIt(Benchmark):
    datasets = ["{name}"]
"""


def judged_by(judge: ServerProcess, *names: str) -> list[str]:
    """Return the arguments for judges of one server."""
    return [f"--vlm-judge-api-base={judge.url}"] + [
        f"--vlm-judge={name}" for name in names or ("judge",)
    ]


GRADED = [
    {
        "index": f"v{number}",
        "question": f"Which <{number}>?",
        "answer": "red",
        "category": "rec",
        "image": IMAGE,
    }
    for number in range(1, 5)
]
