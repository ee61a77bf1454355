"""Define the address, key and timeouts of an OpenAI-compatible server, and open a transport to it.

The transport determines the CPU time of a call: it keeps as many connections as there are concurrent calls,
which admission bounds (aiohttp's own limit is 100), encodes headers once, keeps no cookies, prefers
uncompressed bodies, and looks up the proxy once. `native` is the cheapest; aiohttp supports proxies.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from peerloom.errors import ConfigError
from peerloom.options import FREE, Options, Positive
from peerloom.services.llm.http.base import Transport
from peerloom.services.llm.http.pool import Http1Transport
from peerloom.services.processes.rlimit import allow_open_files
from peerloom.services.secret import Secret

Http = Literal["auto", "native", "aiohttp"]
"""The transport of requests: `native`, `aiohttp`, or `auto`: native unless the environment sets a proxy."""

AUTO: Http = "native"
_SOCKETS = 65_536  # bounded by the hard limit of open files
JSON = {"Content-Type": "application/json", "Accept": "application/json"}
_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|sig|code|credential", re.IGNORECASE)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class HttpOptions(Options):
    """The timeouts of requests, in seconds, and their transport."""

    timeout: Annotated[Positive, FREE] = 600.0
    """Seconds that one attempt may take."""
    connect_timeout: Annotated[Positive, FREE] = 10.0
    """Seconds that opening a connection may take."""
    http: Annotated[Http, FREE] = "auto"
    """The HTTP client: `native` (cheapest, but no proxies), `aiohttp`, or `auto` for the one that suits."""


@dataclass(frozen=True, kw_only=True)
class Endpoint(HttpOptions):
    """The address of a server, and how it is called.

    Args:
        base_url: the URL up to and including `/v1`.
        api_key: the API key, if any; the dialect determines its header.

    Raises:
        ConfigError: if `base_url` or an option is invalid, or the transport does not support the proxy.
    """

    base_url: str
    api_key: Secret | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        url = URL(self.base_url)
        if url.user or url.password:
            raise ConfigError(
                "llm.base_url contains a user or password: remove them, and set the key by its variable"
            )
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"llm.base_url is {self.base_url!r}: it must begin with http:// or https://")
        if url.path.rstrip("/").endswith("/chat/completions"):
            raise ConfigError(f"llm.base_url is {self.base_url!r}: leave out /chat/completions at its end")
        if self.http == "native" and self.proxy is not None:
            raise ConfigError(
                f"llm.http=native supports no proxy, and {url.host} needs one: use auto, or set no_proxy"
            )

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
        if kind != "native":
            # Importing aiohttp takes a third of a second in each peer, and few need it.
            from peerloom.services.llm.http.aiohttp_transport import AiohttpTransport  # noqa: PLC0415

            return AiohttpTransport(self, headers)
        return Http1Transport(
            url, {**JSON, **headers}, seconds=self.timeout, connect_seconds=self.connect_timeout
        )


def _proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment sets for `url`; None for loopback addresses."""
    host = url.host or ""
    if host in _LOOPBACK or proxy_bypass(host):
        return None
    return getproxies().get(url.scheme)
