"""Define the address, key and timeouts of an OpenAI-compatible server, and open a transport to it.

The transport determines the CPU time of a call: it keeps as many connections as there are concurrent calls,
which admission bounds (aiohttp's own limit is 100), encodes headers once, keeps no cookies, prefers
uncompressed bodies, and looks up the proxy once. `thin` is the cheapest; aiohttp supports proxies.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from peerloom.errors import ConfigError
from peerloom.services.llm.http.base import Transport
from peerloom.services.llm.http.pool import Http1Transport
from peerloom.services.processes.rlimit import allow_open_files
from peerloom.services.secret import Secret

Http = Literal["auto", "thin", "aiohttp"]
"""The transport of requests: `thin`, `aiohttp`, or `auto`: thin unless the environment sets a proxy."""

AUTO: Http = "thin"
_SOCKETS = 65_536  # bounded by the hard limit of open files
JSON = {"Content-Type": "application/json", "Accept": "application/json"}
_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|sig|code|credential", re.IGNORECASE)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The address of a server. Times in seconds.

    Args:
        base_url: the URL up to and including `/v1`.
        api_key: the API key, if any; the dialect determines its header.
        timeout: the timeout of one attempt, from connecting to the last byte.
        connect_timeout: the timeout for opening a connection.
        http: the transport of requests.

    Raises:
        ConfigError: if `base_url` or `http` is invalid, or the transport does not support the proxy.
    """

    base_url: str
    api_key: Secret | None = None
    timeout: float = 600.0
    connect_timeout: float = 10.0
    http: Http = "auto"

    def __post_init__(self) -> None:
        url = URL(self.base_url)
        if url.user or url.password:
            raise ConfigError("llm.base_url holds a user or password: leave them out, the key has a variable")
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"llm.base_url is {self.base_url!r}: it must begin with http:// or https://")
        if url.path.rstrip("/").endswith("/chat/completions"):
            raise ConfigError(f"llm.base_url is {self.base_url!r}: leave out /chat/completions at its end")
        if self.http not in get_args(Http):
            raise ConfigError(f"llm.http is {self.http!r}: use one of {', '.join(get_args(Http))}")
        if self.http == "thin" and self.proxy is not None:
            raise ConfigError(f"llm.http=thin reaches {url.host} by no proxy: use auto, or set no_proxy")

    @property
    def proxy(self) -> str | None:
        """The proxy that the environment sets for the server."""
        return _proxy_for(URL(self.base_url))

    def url(self, path: str) -> URL:
        """Return the URL of `path` below the base URL, with the base URL's query (e.g. an API version)."""
        base = URL(self.base_url)
        path, _, query = path.partition("?")
        whole = base.with_path(base.path.rstrip("/") + path).with_query(base.query)
        return whole.update_query(query) if query else whole

    def shown(self, path: str = "") -> str:
        """Return the URL of `path` for messages, without the query."""
        return str(self.url(path).with_query(None))

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets in the address and in that of the proxy; masked for as long as they are referenced."""
        url, proxy = URL(self.base_url), self.proxy
        found = [value for name, value in url.query.items() if _SECRET_NAME.search(name)]
        if proxy is not None:
            found.append(URL(proxy).password or "")
        return tuple(Secret(value) for value in found if value)

    def open_transport(self, headers: Mapping[str, str]) -> Transport:
        """Return a transport for the running event loop; `headers` contain the key."""
        url = URL(self.base_url)
        kind = self.http
        if kind == "auto":
            kind = AUTO if self.proxy is None else "aiohttp"
        allow_open_files(_SOCKETS)
        if kind != "thin":
            # Importing aiohttp takes a third of a second in each peer, and few need it.
            from peerloom.services.llm.http.aiohttp_transport import (  # noqa: PLC0415
                AiohttpTransport,
                open_session,
            )

            return AiohttpTransport(open_session(self, headers), self.timeout)
        return Http1Transport(
            url, {**JSON, **headers}, seconds=self.timeout, connect_seconds=self.connect_timeout
        )


def _proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment sets for `url`; None for loopback addresses."""
    host = url.host or ""
    if host in _LOOPBACK or proxy_bypass(host):
        return None
    return getproxies().get(url.scheme)
