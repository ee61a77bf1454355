"""Provide the Python API: `peerloom.run("coral", limit=20)`, or with the user's workflow, agents and rows.

Both forms make a `Plan`, which holds everything that a run needs without starting anything, and execute it.
The command line uses the same functions.
"""

from peerloom.api.plan import Plan, make_plan
from peerloom.api.result import RunResult
from peerloom.api.runner import arun, default_run_dir, drive, execute, run

__all__ = ["Plan", "RunResult", "arun", "default_run_dir", "drive", "execute", "make_plan", "run"]
