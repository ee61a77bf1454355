"""Fixtures for every test."""

import os
from collections.abc import Iterator

import pytest

# Ray demands a token of whoever connects, but sends one to a cluster that is named by its address only if it
# is told so before it is imported.
os.environ["RAY_AUTH_MODE"] = "token"
FROM_OUTSIDE = ("OPENAI_", "AZURE_OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "PEERLOOM_", "RAY_ADDRESS")

QUICK_SECONDS = 2.0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tests that take long and are not marked `slow`: no test fails for the time that it takes."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    late = [
        f"{report.duration:6.1f} s {report.nodeid}"
        for report in reports
        if report.when == "call" and report.duration > QUICK_SECONDS and "slow" not in report.keywords
    ]
    if late:
        terminalreporter.section(f"over {QUICK_SECONDS:g} s: speed them up, or mark them slow")
        terminalreporter.write_line("\n".join(sorted(late, reverse=True)))


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No developer's key, server, cluster or configuration reaches a test or a process it starts.

    For the whole session, so that it comes before any other fixture. The cache of model weights stays
    the developer's: it is checked by its checksum and expensive to fill.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(FROM_OUTSIDE):
                patch.delenv(name)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory, clean_environment: None) -> Iterator[str]:
    """Connects to a small Ray cluster that all workers of the session share; gives its address."""
    from shared_cluster import shared_cluster

    folder = tmp_path_factory.getbasetemp()
    session = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with shared_cluster(session / "ray-cluster") as address:
        yield address
