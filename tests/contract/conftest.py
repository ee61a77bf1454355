import pytest
from nginx import nginx  # noqa: F401 - a fixture


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> str:
    """Every test that names it runs on both engines."""
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    return request.param


@pytest.fixture(params=["packed", "spread"])
def placement(request: pytest.FixtureRequest) -> str:
    return request.param
