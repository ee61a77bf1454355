"""The Python door: `peerloom.run("coral", limit=20)`, or a workflow, agents and rows of one's own.

Both ways make a `Plan`, all that a run needs with nothing started yet, and execute it; the command
line does the same with the same functions.
"""

from peerloom.api.plan import Plan, make_plan
from peerloom.api.result import RunResult
from peerloom.api.runner import arun, default_run_dir, drive, execute, run

__all__ = ["Plan", "RunResult", "arun", "default_run_dir", "drive", "execute", "make_plan", "run"]
