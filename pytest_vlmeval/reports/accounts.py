"""What a session asked and what it took from the store, in a line each."""

from __future__ import annotations

from pytest_vlmeval.accounts import Account, Origins, RunAccount, SpotCheck

NOT_COMPARED = "not checked: another command asked them at the same time"


def format_account(account: RunAccount) -> list[str]:
    """Return the lines of the terminal: stored answers, and totals of what was asked.

    Those of each dataset are in the report.
    """
    lines = []
    if account.origins and _is_told(account.origins, account.spot_check):
        lines.append(describe_origins(account.origins, account.spot_check))
    if account.now is not None and account.now.requests:
        lines.append(f"asked: {describe_account(account.now)}")
    lines += [
        f"judge {judge.asked}: {describe_account(judge)}"
        for judge in account.judges_now
    ]
    return lines


def _is_told(origins: Origins, check: SpotCheck | None) -> bool:
    return bool(origins.equal or origins.stored or check)


def describe_origins(origins: Origins, check: SpotCheck | None) -> str:
    """Say how many answers come from the store, and whether they are the model's."""
    total = origins.asked + origins.equal + origins.stored
    words = [f"{origins.asked} asked now"]
    if origins.equal:
        words.append(f"{origins.equal} by the answer to an equal prompt among them")
    if origins.stored or check:
        where = f" ({origins.described})" if origins.described else ""
        words.append(f"{origins.stored} from the store{where}")
        words.append(describe_check(check))
    return f"{total} {'answer' if total == 1 else 'answers'}: {', '.join(words)}"


def describe_check(check: SpotCheck | None) -> str:
    """Say what the spot check of the stored answers has shown."""
    if check is None:
        return NOT_COMPARED
    if check.state == "unchecked":
        return f"not checked: {check.why}"
    if check.state == "weights":
        return "spot check: the checksums of the weights are the same"
    compared = check.asked - check.failed
    words = [f"spot check: {check.same} of {compared} the same"]
    if check.unsteady:
        tells = "" if check.same or check.changed else ", which tells nothing"
        words.append(f"{check.unsteady} differently each time{tells}")
    if check.failed:
        words.append(f"{check.failed} more without an answer")
    text = ", ".join(words)
    if check.state == "few":
        if check.few < compared:
            text += f" ({check.few} of them too few to tell: their new answers count)"
        else:
            text += " (too few to tell: the new answers count)"
    return text


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
