"""Implement `peerloom estimate`: estimate the cost and duration of a run before running it."""

from typing import Annotated, Any

import typer
from rich.console import Console

from peerloom.api import make_plan
from peerloom.api.estimate import CONFIDENCE
from peerloom.api.pilot import Forecast, forecast
from peerloom.cli.arguments import ConfigDir, Json, KeptRunDir, Overrides, Quiet, RecipeName
from peerloom.cli.commands.models import pull_embedded
from peerloom.cli.output import echo_json
from peerloom.observe.console import open_console
from peerloom.observe.words import count, duration, headed_table, outcomes, plain


def estimate(
    recipe: RecipeName,
    overrides: Overrides = None,
    sample: Annotated[
        int, typer.Option(min=2, help="The number of rows; in_flight or more, to measure the time well.")
    ] = 20,
    run_dir: KeptRunDir = None,
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
    table = headed_table("", numbers=("expected", f"{CONFIDENCE:.0%} from", "to"))
    estimate = result.estimate
    for label, interval, format in (
        ("prompt tokens", estimate["prompt"], count),
        ("completion tokens", estimate["completion"], count),
        ("LLM calls", estimate["calls"], count),
        *((("cost, USD", estimate["usd"], _dollars),) if result.priced else ()),
        ("time", estimate["seconds"], duration),
    ):
        table.add_row(label, *map(format, (interval.expected, interval.low, interval.high)))
    console.print(table)
    if not result.priced:
        console.print(plain("cost: unknown, for lack of prices; set prices=genai or prices=FILE.yaml"))
    about = f"{count(result.rows)} rows, {count(result.tasks)} tasks, from a pilot of {count(result.sampled)}"
    console.print(plain(f"{about}: {outcomes(result.summary['outcomes'])}"))


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 10 else f"{amount:,.4f}"
