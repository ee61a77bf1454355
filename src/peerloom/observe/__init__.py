"""Observe a run through its hooks: display, log and summary."""

from peerloom.observe.display import LineDisplay, LiveDisplay, open_display
from peerloom.observe.log import LogHooks
from peerloom.observe.summary import print_summary

__all__ = ["LineDisplay", "LiveDisplay", "LogHooks", "open_display", "print_summary"]
