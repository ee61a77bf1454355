"""What tests of calls over HTTP share."""

import pytest

from peerloom.services.llm.http import endpoint


@pytest.fixture(params=["native", "aiohttp"])
def either_http(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Endpoints that leave it open what carries their requests take the one, then the other."""
    monkeypatch.setattr(endpoint, "AUTO", request.param)
    return request.param
