"""The launcher of an SGLang server that wants a key: it takes the key from the environment.

SGLang knows a key only as an argument, and everybody on a machine can read those. So this appends it to the
arguments as Python sees them, inside the process, and then runs `sglang.launch_server`. Run by path, as
`python sglang_launcher.py [ARG ...]`, by whatever Python has SGLang: it needs nothing of this package.
"""

import os
import runpy
import sys

KEY = "PEERLOOM_SERVER_KEY"


def main() -> None:
    """Become SGLang's server."""
    sys.argv += ["--api-key", os.environ.pop(KEY)]
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
