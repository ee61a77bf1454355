"""Implement `peerloom estimate`: estimate the cost and duration of a run before running it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from peerloom.api import make_plan
from peerloom.api.estimate import CONFIDENCE, Interval
from peerloom.api.pilot import Forecast, forecast
from peerloom.cli.app import VERBS, handle_errors
from peerloom.cli.arguments import ConfigDir, Json, Overrides, Quiet, RecipeName, expanded
from peerloom.cli.commands.models import pull_embedded
from peerloom.cli.output import echo_json
from peerloom.observe.console import open_console
from peerloom.observe.words import count, duration, outcomes, plain


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("estimate", help=VERBS["estimate"])(handle_errors(estimate))


def estimate(
    recipe: RecipeName,
    overrides: Overrides = None,
    sample: Annotated[
        int, typer.Option(min=2, help="Rows to try it on; as many as in_flight, to measure time well.")
    ] = 20,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Keep the pilot's run there. [default: it is removed]", show_default=False, callback=expanded
        ),
    ] = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a pilot, and print the estimate for all rows."""
    plan = make_plan(recipe, overrides or (), config_dir=config_dir)
    pull_embedded(plan.config, quiet=quiet)
    result = forecast(plan, sample, run_dir, progress=not quiet)
    if as_json:
        echo_json(_plain(plan.name, result), indent=True)
    else:
        _print(open_console(), result)


def _plain(recipe: str, result: Forecast) -> dict[str, Any]:
    by_name: dict[str, Any] = {name: each._asdict() for name, each in result.estimate.items()}
    if not result.priced:
        by_name["usd"] = None
    return {
        "recipe": recipe,
        "rows": result.rows,
        "tasks": result.tasks,
        "confidence": CONFIDENCE,
        "estimate": by_name,
        "pilot": {"rows": result.sampled, **result.summary},
    }


def _print(console: Console, result: Forecast) -> None:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("")
    for name in ("expected", f"{CONFIDENCE:.0%} from", "to"):
        table.add_column(name, justify="right")
    estimate = result.estimate
    for label, interval, format in (
        ("prompt tokens", estimate["prompt"], count),
        ("completion tokens", estimate["completion"], count),
        ("LLM calls", estimate["calls"], count),
        *((("cost, USD", estimate["usd"], _dollars),) if result.priced else ()),
        ("time", estimate["seconds"], duration),
    ):
        table.add_row(label, *(format(value) for value in _ordered(interval)))
    console.print(table)
    if not result.priced:
        console.print(plain("cost: no price is known; prices=genai or prices=FILE.yaml tells one"))
    about = f"{count(result.rows)} rows, {count(result.tasks)} tasks, from a pilot of {count(result.sampled)}"
    console.print(plain(f"{about}: {outcomes(result.summary['outcomes'])}"))


def _ordered(interval: Interval) -> tuple[float, float, float]:
    return interval.expected, interval.low, interval.high


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 10 else f"{amount:,.4f}"
