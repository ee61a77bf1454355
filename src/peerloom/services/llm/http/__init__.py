"""A thin HTTP/1.1 client for the plain case: keep-alive, a sized body out, a whole body in.

An exception to the rule that a library beats own code, for its figures: a call costs a fifth of aiohttp's CPU
time. Parsing is `httptools` (llhttp), TLS and sockets are the event loop's. What it cannot do (proxies),
aiohttp does. Whatever a bad server may do, both are tested with side by side.
"""
