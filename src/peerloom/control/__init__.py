"""Control a run from other processes: the driver runs a server, and `peerloom ctl` is its client.

`protocol` signs requests and answers, `server` executes requests, `status` collects the status, and `client`
sends requests.
"""
