"""The address of an OpenAI-compatible server, its key and timeouts, and the connection pool to it.

The pool is what a call's CPU time hangs on: as many keep-alive connections as there are calls at once, which
admission bounds (aiohttp's own limit is 100), headers made once, no cookies, plain bodies preferred, the
proxy looked up once. `thin` is the cheapest; what it has no way for goes through aiohttp.
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
"""What carries requests: `thin`, `aiohttp`, or (`auto`) thin unless the environment wants a proxy."""

AUTO: Http = "thin"
_SOCKETS = 65_536  # as many as the hard limit of open files lets in
JSON = {"Content-Type": "application/json", "Accept": "application/json"}
_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|sig|code|credential", re.IGNORECASE)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a server is. Times in seconds.

    Args:
        base_url: up to and including `/v1`.
        api_key: sent as the dialect says, if any.
        timeout: for one attempt, from connecting to the last byte.
        connect_timeout: for opening a connection.
        http: what carries requests there.

    Raises:
        ConfigError: if `base_url` cannot be one, or `http` is none, or cannot reach it.
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
        """The proxy that the environment wants for it."""
        return _proxy_for(URL(self.base_url))

    def url(self, path: str) -> URL:
        """The URL of `path` below the base URL, whose query (an API version, say) it keeps."""
        base = URL(self.base_url)
        path, _, query = path.partition("?")
        whole = base.with_path(base.path.rstrip("/") + path).with_query(base.query)
        return whole.update_query(query) if query else whole

    def shown(self, path: str = "") -> str:
        """The URL of `path` as messages show it, without the query."""
        return str(self.url(path).with_query(None))

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What is secret in the address and in that of the proxy; masked for as long as it is held."""
        url, proxy = URL(self.base_url), self.proxy
        found = [value for name, value in url.query.items() if _SECRET_NAME.search(name)]
        if proxy is not None:
            found.append(URL(proxy).password or "")
        return tuple(Secret(value) for value in found if value)

    def open_carrier(self, headers: Mapping[str, str]) -> Transport:
        """What carries requests, for the running event loop; `headers` carry the key."""
        url = URL(self.base_url)
        kind = self.http
        if kind == "auto":
            kind = AUTO if self.proxy is None else "aiohttp"
        allow_open_files(_SOCKETS)
        if kind != "thin":
            # A third of a second, in each peer, for what few need.
            from peerloom.services.llm.http.aiohttp_transport import (  # noqa: PLC0415
                AiohttpTransport,
                open_session,
            )

            return AiohttpTransport(open_session(self, headers), self.timeout)
        return Http1Transport(
            url, {**JSON, **headers}, seconds=self.timeout, connect_seconds=self.connect_timeout
        )


def _proxy_for(url: URL) -> str | None:
    """The proxy the environment wants for `url`; none for this machine itself."""
    host = url.host or ""
    if host in _LOOPBACK or proxy_bypass(host):
        return None
    return getproxies().get(url.scheme)
