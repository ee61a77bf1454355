"""A tool as a process: a line of JSON in, a line of JSON out. Run by its path, with any Python.

What a step does is little on purpose: it keeps an account for each dialogue, as a tool with a state does.
"""

import json
import sys


def main() -> None:
    """Serve until the input ends."""
    accounts: dict[str, int] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        name = str(asked["dialogue"])
        accounts[name] = accounts.get(name, 0) + len(str(asked["text"]))
        answer = {"dialogue": name, "text": f"account {name} holds {accounts[name]} characters. " * 4}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
