"""Send requests to model servers by a minimal HTTP/1.1 client, or by aiohttp.

The minimal client supports keep-alive connections, sized request bodies and complete response bodies. It
exists because a call takes a fifth of aiohttp's CPU time. `httptools` (llhttp) parses responses; TLS and
sockets are the event loop's. Proxies need aiohttp. The same tests of faulty servers run against both.
"""
