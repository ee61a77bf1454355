"""Agents: they perform the steps of a task."""
