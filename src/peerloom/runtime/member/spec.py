"""Define the specification that a member starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peerloom.protocol.view import Member
from peerloom.runtime.program import Program
from peerloom.runtime.settings import RunSettings
from peerloom.services.base import ServiceSpec
from peerloom.services.llm.client.service import ClientSpec
from peerloom.services.secret import Secret, known
from peerloom.source.base import Source


@dataclass(frozen=True)
class MemberSpec:
    """Everything a member needs to start. Only feeders get the source, only peers the model client.

    `services` are those besides the model; they are for peers, and feeders tell of tasks that hold leases.
    `programs` are the digests of the versions of the program, in order, each with the first incarnation that
    used it. Every member gets the secrets known to the driver, to mask them.
    """

    member: Member
    program: Program
    settings: RunSettings
    run_dir: Path
    provenance: Mapping[str, Any]
    programs: tuple[tuple[int, str], ...] = ()
    source: Source | None = None
    llm: ClientSpec | None = None
    services: Mapping[str, ServiceSpec] = field(default_factory=dict[str, ServiceSpec])
    secrets: tuple[Secret, ...] = field(default_factory=known)
