"""Clients of other projects, each in the environment that `make clients` installs it in."""

import sys
from pathlib import Path

import pytest

ENVIRONMENTS = {"openai": "clients", "langchain": "clients", "instructor": "clients", "litellm": "litellm"}


def python_with(client: str) -> Path:
    """The Python that can import the client; without it the test is skipped."""
    python = Path(sys.prefix, ENVIRONMENTS[client], "bin", "python")
    if not python.exists():
        pytest.skip(f"needs {client} in an environment of its own: make clients")
    return python
