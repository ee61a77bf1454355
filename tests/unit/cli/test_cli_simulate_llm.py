import json
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen


def test_the_simulated_model_is_served(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    arguments = ["simulate-llm", "--port", "0", "--tokens", "20", "--tokens-sigma", "0", "--log", str(log)]
    command = [sys.executable, "-m", "peerloom", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().split(" at ")[1].split(" ")[0]
            with urlopen(f"{url}/models") as answer:
                assert json.load(answer)["data"][0]["id"] == "simulated"
            body = json.dumps({"model": "simulated", "messages": [{"role": "user", "content": "hello"}]})
            with urlopen(f"{url}/chat/completions", data=body.encode()) as answer:
                assert json.load(answer)["usage"]["completion_tokens"] > 0
        finally:
            server.terminate()
    assert len(log.read_text().splitlines()) == 1


def test_a_law_out_of_range_is_refused(peerloom) -> None:
    ended = peerloom("simulate-llm", "--rate-429", "2")
    assert ended.code == 2
    assert ended.err == "error: llm.rate_429=2.0: must be 1 or less.\n"
