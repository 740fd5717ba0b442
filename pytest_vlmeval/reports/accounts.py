"""What a run cost, in a few lines of the terminal summary."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_vlmeval.accounts import Account, RunAccount


def format_account(account: RunAccount) -> list[str]:
    """Return the model's total, each dataset where there are several, each judge's."""
    lines: list[str] = []
    if account.model.requests:
        lines += _lines("asked", account.model, account.datasets)
    for judge in account.judges:
        of_judge = [
            each for each in account.judge_datasets if each.asked == judge.asked
        ]
        lines += _lines(f"judge {judge.asked}", judge, of_judge)
    return lines


def _lines(name: str, total: Account, parts: Iterable[Account]) -> list[str]:
    asked = [part for part in parts if part.requests]
    lines = [f"{name}: {describe_account(total)}"]
    if len(asked) > 1:
        lines += [f"  {part.dataset}: {describe_account(part)}" for part in asked]
    return lines


def describe_account(account: Account) -> str:
    """Say in one line what was asked, how long it took and what went wrong."""
    noun = "request" if account.requests == 1 else "requests"
    words = [f"{account.requests} {noun}"]
    if account.retries:
        words.append(f"{account.retries} of them again")
    words.append(
        f"{account.prompt_tokens} tokens in and {account.completion_tokens} out"
    )
    if account.latency_p50_ms is not None:
        ranks = account.latency_p50_ms, account.latency_p95_ms, account.latency_p99_ms
        shown = "/".join(f"{rank or 0:.0f}" for rank in ranks)
        words.append(f"p50/p95/p99 {shown} ms")
    if account.errors:
        counts = ", ".join(f"{kind} {count}x" for kind, count in account.errors.items())
        words.append(f"errors: {counts}")
    return ", ".join(words)
