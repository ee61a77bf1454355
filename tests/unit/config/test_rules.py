import pytest

from peerloom.config import check, compose
from peerloom.config.rules import unknown_roles
from peerloom.errors import ConfigError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["roles.teacher.replicas=2"], "roles.teacher needs placement=spread"),
        (["engine=local", "ray.address=auto"], "ray.address=auto needs engine=ray"),
        (
            ["suspect_seconds=1", "heartbeat_seconds=2"],
            "suspect_seconds=1 must be more than heartbeat_seconds=2",
        ),
        (["llm=scripted"], "llm=scripted has no script"),
    ],
)
def test_a_combination_that_cannot_run_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(compose("coral", overrides))


def test_a_placed_role_that_the_workflow_lacks_is_named() -> None:
    config = check(compose("coral", ["placement=spread", "roles.teecher.replicas=2"]))
    assert unknown_roles(config, ["teacher", "student"]) == [
        "roles.teecher: the workflow has no role 'teecher'. "
        "Did you mean 'teacher'? There are: teacher, student."
    ]
