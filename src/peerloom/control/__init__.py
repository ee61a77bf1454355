"""Control of a run from elsewhere: the driver serves it, `peerloom ctl` asks for it.

`signing` proves who asks and who answers, `server` carries out, `status` tells, `client` asks.
"""
