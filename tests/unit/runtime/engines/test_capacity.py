"""Resources that members ask a Ray cluster for; the cluster is made up."""

import pytest

from peerloom.protocol.view import ALONE, PEER, Member
from peerloom.runtime.engines.ray import capacity
from peerloom.runtime.engines.ray.engine import RayEngine
from peerloom.runtime.settings import RoleSettings, RunSettings

NEAR, FAR = {"CPU": 4.0, "near": 1.0}, {"CPU": 4.0, "far": 1.0}
ROLES = {name: RoleSettings(resources={name: 0.5}) for name in ("near", "far")}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> RayEngine:
    nodes = [{"Resources": NEAR, "Alive": True}, {"Resources": FAR, "Alive": True}]
    nodes.append({"Resources": NEAR | FAR, "Alive": False})
    monkeypatch.setattr(capacity.ray, "nodes", lambda: nodes)
    return RayEngine(RunSettings(roles=ROLES))


@pytest.mark.parametrize(
    ("kind", "roles", "asked"),
    [
        (PEER, ("far",), {"far": 0.5}),
        (ALONE, ("near",), {"near": 0.5}),
        (ALONE, ("near", "far"), {}),  # no node has both, and its suspects would wait for ever
        (PEER, ("near", "far"), {"near": 0.5, "far": 0.5}),  # refused or waited for, as it was asked for
    ],
)
def test_a_member_asks_for_the_resources_of_its_roles(
    engine: RayEngine, kind: str, roles: tuple[str, ...], asked: dict[str, float]
) -> None:
    options, requested = engine._options(Member(kind, 0, 1, roles))  # pyright: ignore
    assert options["resources"] == requested == asked
