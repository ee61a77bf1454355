"""What happens in a history, in words short enough to read."""

from typing import Any

import msgspec

from peerloom.protocol.leases.table import Lease
from peerloom.protocol.messages import Item
from peerloom.protocol.view import Member, View
from peerloom.task import Header, Task, TaskId


def brief(value: Any) -> str:
    """A message, an id, a process or a list of them; `0-4-1@2.3` is attempt 2, hop 3 of a task."""
    match value:
        case None:
            text = ""
        case Item() | Task():
            text = brief(value.header)
        case Header():
            text = f"{value.id}@{value.attempt}.{value.hop}"
        case View():
            text = f"view {value.number} of {' '.join(member.name for member in value.members)}"
        case msgspec.Struct() if not isinstance(value, Member):
            fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
            text = f"{type(value).__name__}({', '.join(f'{n}={brief(v)}' for n, v in fields if v != [])})"
        case Lease():
            text = f"lease of {value.id} with {value.resource}"
        case list():
            text = f"[{' '.join(map(brief, value))}]"
        case (first, second) if not isinstance(value, TaskId):
            text = f"{brief(second)} from {brief(first)}"
        case _:
            text = str(getattr(value, "name", value))
    return text
