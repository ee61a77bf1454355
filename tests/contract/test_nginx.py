"""The fixture for tests behind nginx: it serves what it is told, and is gone afterwards."""

from collections.abc import Callable
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest


def test_nginx_refuses_what_is_above_its_rate(nginx: Callable[..., str]) -> None:
    zone = "limit_req_zone $binary_remote_addr zone=all:1m rate=1r/m;"
    answers = "location @here { return 200 ok; }"
    url = nginx("location / { limit_req zone=all; try_files /none @here; }" + answers, zone)
    with urlopen(f"{url}/") as answer:
        assert answer.read() == b"ok"
    with pytest.raises(HTTPError, match="503") as refused:
        urlopen(f"{url}/")
    with refused.value as page:
        assert b"<h1>503 Service Temporarily Unavailable</h1>" in page.read()
