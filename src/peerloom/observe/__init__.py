"""What watches a run: hooks, never code inside the peer."""

from peerloom.observe.display import LineDisplay, LiveDisplay, open_display
from peerloom.observe.log import LogHooks
from peerloom.observe.summary import print_summary

__all__ = ["LineDisplay", "LiveDisplay", "LogHooks", "open_display", "print_summary"]
