import pytest

from peerloom.errors import ConfigError
from peerloom.runtime.member.feeder import split_in_flight
from peerloom.runtime.settings import RoleSettings, RunSettings, adjusted, members

ROLES = ("teacher", "student")


def placed(settings: RunSettings) -> list[str]:
    return [f"{m.name}:{','.join(m.roles)}" for m in members(settings, ROLES)]


def test_packed_peers_host_every_role() -> None:
    assert placed(RunSettings(peers=2)) == [
        "feeder-0.1:",
        "sink-0.1:",
        "peer-0.1:teacher,student",
        "peer-1.1:teacher,student",
    ]


def test_spread_gives_each_role_its_replicas() -> None:
    settings = RunSettings(
        placement="spread", roles={"teacher": RoleSettings(replicas=2)}, shards=2, partitions=2
    )
    assert placed(settings) == [
        "feeder-0.1:",
        "feeder-1.1:",
        "sink-0.1:",
        "sink-1.1:",
        "peer-0.1:teacher",
        "peer-1.1:teacher",
        "peer-2.1:student",
    ]


def test_peers_is_the_default_number_of_replicas() -> None:
    assert len(members(RunSettings(placement="spread", peers=3), ROLES)) == 2 + 6


def test_an_unknown_role_is_named() -> None:
    with pytest.raises(ConfigError, match=r"roles\.techer.*teacher, student"):
        members(RunSettings(placement="spread", roles={"techer": RoleSettings()}), ROLES)


def test_roles_cannot_be_placed_when_packed() -> None:
    with pytest.raises(ConfigError, match="placement=spread"):
        members(RunSettings(roles={"teacher": RoleSettings()}), ROLES)


@pytest.mark.parametrize(("in_flight", "partitions"), [(5, 2), (2, 2), (64, 1), (100, 7)])
def test_shares_add_up_and_nobody_is_left_out(in_flight: int, partitions: int) -> None:
    shares = [split_in_flight(in_flight, partition, partitions) for partition in range(partitions)]
    assert sum(shares) == in_flight
    assert max(shares) - min(shares) <= 1


def test_what_is_adjusted_is_a_number_that_it_can_be() -> None:
    settings = RunSettings(partitions=2)
    assert adjusted(settings, "in_flight", "10").in_flight == 10
    assert adjusted(settings, "heartbeat_seconds", "0.5").heartbeat_seconds == 0.5
    for key, value in (("in_flight", "1"), ("in_flight", "2.5"), ("suspect_seconds", "0"), ("seed", "1")):
        with pytest.raises(ConfigError, match=key):
            adjusted(settings, key, value)
