"""Stage 2: the protocol between members, as state machines without Ray, asyncio, or a clock."""
