"""The Python door: `peerloom.run("coral", limit=20)`, or a workflow, agents and rows of one's own.

Both ways end in a `Plan`, everything a run needs with nothing started yet; the command line makes the
same plan from the same configuration and executes it with the same function.
"""

import asyncio
import contextlib
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast

import uvloop
from rich.console import Console

from peerloom import recipes
from peerloom.agents.base import Agent
from peerloom.config import Config, check, compose, to_yaml
from peerloom.config.build import make_llm, make_settings, make_source, settle
from peerloom.errors import ConfigError, WorkflowError
from peerloom.events import Hooks, RunFinished
from peerloom.interrupts import Interrupts
from peerloom.observe import LogHooks, open_display
from peerloom.runtime.program import Program
from peerloom.runtime.run import Run
from peerloom.runtime.settings import RunSettings
from peerloom.services.llm.scripted import ScriptedService
from peerloom.services.llm.service import LLMService
from peerloom.sink.read import read_rows
from peerloom.sink.rundir import RunDir
from peerloom.source.base import Source
from peerloom.source.memory import RowsSource
from peerloom.workflow import Workflow, check_agents
