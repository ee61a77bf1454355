"""Stage 2: the protocol as plain state machines, without Ray, asyncio or clock."""
