"""Launch an SGLang server with an API key taken from the environment.

SGLang accepts a key only as an argument, and all users of a machine can read the arguments of a process. So
this appends it to `sys.argv` inside the process, and then runs `sglang.launch_server`. Run by path, as
`python sglang_launcher.py [ARG ...]`, by the interpreter that has SGLang: it imports nothing of this package.
"""

import os
import runpy
import sys

KEY = "PEERLOOM_SERVER_KEY"


def main() -> None:
    """Run SGLang's server in this process."""
    sys.argv += ["--api-key", os.environ.pop(KEY)]
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
