"""Print the summary of an ended run: its figures, and the paths of its rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from peerloom.events import AgentTotals
from peerloom.observe.words import agents_table, count, duration, outcomes, plain


def print_summary(console: Console, summary: Mapping[str, Any], run_dir: Path) -> None:
    """Print the content of `summary.json` as tables, and the paths of the rows."""
    console.print(_run(summary))
    if summary["agents"]:
        agents = summary["agents"]
        usd = {role: agent["usd"] for role, agent in agents.items()} if summary.get("usd") else None
        console.print(agents_table({role: _totals(agent) for role, agent in agents.items()}, usd))
    completed = summary["outcomes"].get("completed", 0)
    rejected = sum(summary["outcomes"].values()) - completed
    _print_path(console, completed, run_dir / "data")
    if rejected:
        _print_path(console, rejected, run_dir / "rejected")


def _print_path(console: Console, rows: int, directory: Path) -> None:
    console.print(plain(f"{count(rows)} rows in {directory / 'part-*.jsonl'}"), soft_wrap=True)


def _run(summary: Mapping[str, Any]) -> Table:
    tokens = summary["tokens"]
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("tasks", count(summary["admitted"]))
    table.add_row("outcomes", plain(outcomes(summary["outcomes"])))
    reasons = {reason: number for reason, number in summary["reasons"].items() if reason}
    if reasons:
        table.add_row("reasons", plain(outcomes(reasons)))
    for number, error in enumerate(summary.get("errors", ())):
        table.add_row("" if number else "errors", plain(_error(error)))
    table.add_row("LLM calls", count(summary["llm_calls"]))
    table.add_row(
        "tokens",
        f"{count(tokens['prompt'])} prompt ({count(tokens['cached'])} cached), "
        f"{count(tokens['completion'])} completion, {summary['tokens_per_second']:,.1f}/s",
    )
    if summary.get("usd"):
        each = summary.get("usd_per_completed_row")
        per_row = f", {each:,.6f} for each completed row" if each is not None else ""
        table.add_row("cost", f"{summary['usd']:,.4f} USD{per_row}")
    if (budget := summary.get("budget")) is not None:
        table.add_row("budget", _budget(budget))
    if summary.get("suspended"):
        table.add_row("suspended", f"{count(summary['suspended'])} tasks wait for a resume")
    if (cache := summary.get("cache")) is not None:
        table.add_row("cache", _cache(cache))
    table.add_row("time", f"{duration(summary['wall_seconds'])} ({summary['cpu_seconds']:,.1f} CPU s)")
    return table


def _error(error: Mapping[str, Any]) -> str:
    place = f" ({error['file']}:{error['line']})" if error["file"] else ""
    kind = error["reason"] if error["type"] == "TaskError" else error["type"]
    message = " ".join(error["message"].split())
    role = error["role"] or "workflow"
    return f"{count(error['count'])} x {role}: {kind}: {message}{place}, e.g. row {error['example']}"


def _budget(budget: Mapping[str, Mapping[str, float]]) -> str:
    parts: list[str] = []
    for name, each in budget.items():
        used, total = each["used"], each["total"]
        money = name == "usd"
        parts.append(f"{used:,.4f} of {total:g} USD" if money else f"{used:,.0f} of {total:,.0f} {name}")
    return ", ".join(parts)


def _cache(cache: Mapping[str, Any]) -> str:
    calls = cache["hits"] + cache["misses"]
    saved = f"{count(cache['saved_tokens'])} tokens"
    if cache["saved_usd"]:
        saved += f", {cache['saved_usd']:,.4f} USD"
    return f"{count(cache['hits'])} of {count(calls)} calls ({cache['hit_rate']:.1%}), {saved} saved"


def _totals(agent: Mapping[str, Any]) -> AgentTotals:
    return AgentTotals(
        agent["turns"],
        agent["calls"],
        agent["prompt"],
        agent["completion"],
        agent["cached"],
        agent["seconds"],
    )
