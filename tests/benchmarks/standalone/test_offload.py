import json
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.__main__ import main as benchmark
from benchmarks.comparison.job import Program
from benchmarks.harness.hosts import TwoHosts
from benchmarks.standalone import offload
from benchmarks.standalone.offload import main
from peerloom.errors import ConfigError

POINT = {
    "fan_out": 4,
    "size": 1_024,
    **{f"{way}_{what}_us": 1_234.5678 for way in ("plain", "packed", "store") for what in ("cpu", "wall")},
}


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """Points that take no time, on this node only; what was to be measured."""
    asked: list[Mapping[str, Any]] = []

    async def found(program: Program, address: str, *, near: str = "", far: str = "") -> list[dict[str, Any]]:
        asked.append({"address": address, "near": near, "far": far})
        return [POINT]

    monkeypatch.setattr(offload, "_measured", found)
    monkeypatch.setattr(TwoHosts, "missing", classmethod(lambda cls: "no namespaces here"))
    return asked


def test_json_is_one_line_for_each_point(
    measured: list[Mapping[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    main(json=True)
    told = capfd.readouterr()
    (line,) = map(json.loads, told.out.splitlines())
    assert (line["bench"], line["node"], line["fan_out"], line["size"]) == ("offload", "same", 4, 1_024)
    assert line["packed_cpu_us"] == 1_234.6
    assert "other node left out: no namespaces here" in told.err
    assert measured == [{"address": "local", "near": "", "far": ""}]


def test_people_get_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    main()
    assert "same" in (out := capfd.readouterr().out)
    assert "1,235" in out


def test_the_command_line_has_it_and_refuses_what_is_for_tasks(capfd: pytest.CaptureFixture[str]) -> None:
    benchmark("offload", as_json=True)
    assert json.loads(capfd.readouterr().out)["bench"] == "offload"
    with pytest.raises(ConfigError, match="--in-flight is not for offload"):
        benchmark("offload", in_flight=3)
