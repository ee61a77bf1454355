"""Implement `peerloom check`: report every error that can be found without starting anything."""

from peerloom.api import make_plan
from peerloom.cli.arguments import ConfigDir, Json, Overrides, RecipeName
from peerloom.cli.output import echo, echo_json


def check(
    recipe: RecipeName, overrides: Overrides = None, config_dir: ConfigDir = None, as_json: Json = False
) -> None:
    """Make the plan, and print it."""
    plan = make_plan(recipe, overrides or (), config_dir=config_dir)
    plan.check_rows()
    rows = plan.count_rows()
    if as_json:
        shown = {
            "recipe": plan.name,
            "roles": plan.program.workflow.roles,
            "rows": rows,
            "tasks": rows and rows * plan.settings.trials,
            "config": plan.config.plain(),
        }
        echo_json(shown, indent=True)
        return
    echo(plan.yaml, end="")
    known = "the" if rows is None else rows
    echo(f"# {plan.name} is ready: {known} rows x {plan.settings.trials} trials", end="")
    echo(f", roles {', '.join(plan.program.workflow.roles)}")
