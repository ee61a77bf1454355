"""Command lines of the engines: their own options, and no key among them."""

import runpy
import sys
from pathlib import Path

import pytest

from peerloom.services.fleets import sglang_launcher
from peerloom.services.fleets.engines import SglangFleet, VllmFleet
from peerloom.services.processes.server import ServerAddress, base_url
from peerloom.services.secret import Secret

ADDRESS = ServerAddress("10.0.0.7", 4321, sharing=1, here=True)
KEY = Secret("not-to-be-seen")
FLEET = Path("none.json")


def test_vllm_as_it_is() -> None:
    command = VllmFleet(model="org/m").command(FLEET, None)
    assert command.argv(ADDRESS) == (
        "vllm serve org/m --host 10.0.0.7 --port 4321 --served-model-name org/m "
        "--enable-prompt-tokens-details --tensor-parallel-size 1"
    ).split(" ")
    assert command.env == {}


def test_vllm_with_everything(tmp_path: Path) -> None:
    engine = VllmFleet(
        model="org/m",
        served_name="m",
        tensor_parallel_size=4,
        max_model_len=8192,
        prefix_caching=True,
        gpu_memory_utilization=0.9,
        max_num_seqs=64,
        dtype="bfloat16",
        lora=True,
        extra=("--enforce-eager",),
        program="/opt/vllm",
    )
    for name in ("a", "b"):
        adapter = tmp_path / ".fleet.adapters" / name
        adapter.parent.mkdir(exist_ok=True)
        adapter.write_text(f"/weights/{name}")
    command = engine.command(tmp_path / "fleet.json", KEY)
    assert command.argv(ADDRESS) == (
        "/opt/vllm serve org/m --host 10.0.0.7 --port 4321 --served-model-name m "
        "--enable-prompt-tokens-details --tensor-parallel-size 4 "
        "--max-model-len 8192 --gpu-memory-utilization 0.9 --max-num-seqs 64 --dtype bfloat16 "
        "--enable-prefix-caching --enable-lora --lora-modules a=/weights/a b=/weights/b --enforce-eager"
    ).split(" ")
    assert command.env == {"VLLM_API_KEY": "not-to-be-seen", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    assert "not-to-be-seen" not in repr(command)


def test_vllm_without_prefix_caching() -> None:
    assert (
        VllmFleet(model="m", prefix_caching=False).command(FLEET, None).argv(ADDRESS)[-1]
        == "--no-enable-prefix-caching"
    )


def test_sglang_as_it_is() -> None:
    engine = SglangFleet(model="org/m", tensor_parallel_size=2, context_length=4096, mem_fraction_static=0.8)
    argv = engine.command(FLEET, None).argv(ADDRESS)
    assert argv[0] == sys.executable
    assert argv[1:] == (
        "-m sglang.launch_server --model-path org/m --host 10.0.0.7 --port 4321 --served-model-name org/m "
        "--enable-cache-report --tp-size 2 --context-length 4096 --mem-fraction-static 0.8"
    ).split(" ")


def test_sglang_with_a_key_goes_through_the_launcher() -> None:
    command = SglangFleet(model="m", python="/opt/python").command(FLEET, KEY)
    assert command.argv(ADDRESS)[:2] == ["/opt/python", sglang_launcher.__file__]
    assert not any("not-to-be-seen" in part for part in command.argv(ADDRESS))
    assert command.env == {sglang_launcher.KEY: "not-to-be-seen"}


def test_the_launcher_gives_sglang_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sglang"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "launch_server.py").write_text(
        "import os, sys\nfrom pathlib import Path\n"
        f"Path({str(tmp_path / 'told')!r}).write_text(' '.join(sys.argv[1:]) + str(dict(os.environ)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(sglang_launcher.KEY, "not-to-be-seen")
    monkeypatch.setattr(sys, "argv", ["launcher", "--model-path", "m"])
    runpy.run_path(sglang_launcher.__file__, run_name="__main__")
    told = (tmp_path / "told").read_text()
    assert told.startswith("--model-path m --api-key not-to-be-seen")
    assert sglang_launcher.KEY not in told


def test_the_address_of_a_seat() -> None:
    assert base_url(ADDRESS) == "http://10.0.0.7:4321"
    assert base_url(ServerAddress("::1", 1, 1, here=True)) == "http://[::1]:1"
