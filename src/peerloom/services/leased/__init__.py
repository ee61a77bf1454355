"""Services whose resources tasks hold: server processes with a lease table, and their clients."""
