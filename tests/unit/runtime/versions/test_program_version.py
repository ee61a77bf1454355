"""The version of a program follows from its text, and says what it leaves out."""

import itertools
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from peerloom.runtime.versions.version import version_of
from peerloom.sink.rundir.versions import ProgramVersion

NAMES = itertools.count()
HEAD = """
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from peerloom import FunctionAgent, LLMAgent, Program, Turn
from peerloom.workflow import END, Graph, Loop, Sequence, When
"""

EVERYTHING = """
import re
WORDS = {"ice", "fire", "air", "water"}
TABLE = {"a": frozenset({"x", "y", "z"}), "b": [1, 2.5, None, True, b"raw"]}
PATTERN = re.compile("a+", re.I)

class Mood(Enum):
    GOOD = "good"
    BAD = "bad"

@dataclass
class Judge:
    strict: bool
    words: set[str] = field(default_factory=lambda: set(WORDS))
    mood: Mood = Mood.BAD

    async def act(self, task, services):
        return Turn("", value=self._score(task))

    def _score(self, task):
        return clean(task.last.text, TABLE)

def clean(text, table):
    inner = lambda word: word in WORDS
    return [word for word in PATTERN.findall(text) if inner(word)] or clean("", table)

def program():
    limit = {"c", "d", "e"}
    check = lambda task: len(task.last.text) in limit
    return Program(
        Graph("ask", {"ask": [When(lambda task: True, "judge"), "fn"], "judge": END, "fn": "judge"}),
        {
            "ask": LLMAgent("Say {{ input.n }}", schema={"type": "object", "properties": {"b": {}, "a": {}}}),
            "judge": Judge(True),
            "fn": FunctionAgent(partial(clean, table=check)),
        },
        check_row=check,
    )
"""


def version(folder: Path, text: str, head: str = HEAD) -> ProgramVersion:
    """The version of the program of a module with this text."""
    path = folder / f"module{next(NAMES)}.py"
    path.write_text(head + dedent(text))
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module: Any = module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return version_of(module.program())


def of_agent(folder: Path, agent: str, text: str = "", head: str = HEAD) -> ProgramVersion:
    """The version of a program with one agent, an expression."""
    made = f"\ndef program():\n    return Program(Sequence('a'), {{'a': {agent}}})\n"
    return version(folder, dedent(text) + made, head)


def test_fresh_processes_find_the_same_digest(tmp_path: Path) -> None:
    (tmp_path / "everything.py").write_text(HEAD + EVERYTHING)
    code = (
        "from peerloom.runtime.versions.version import version_of; import everything, json; "
        "v = version_of(everything.program()); print(json.dumps([v.digest, v.parts, v.uncovered]))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([".", *sys.path])},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    (only,) = printed
    assert only.endswith(b", []]\n"), "something is uncovered"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# why", "# another reason\n"),
        ("TABLE = {", "TABLE = {  # a table\n    "),
        ("def clean(text, table):", 'def clean( text , table ):\n    """Say why."""'),
        ("class Mood", "def unrelated():\n    return 1\n\nclass Mood"),
        ("import re\n", "import os\nimport re\n"),
        ("async def act(self, task, services):", 'async def act(self, task, services):\n        "Act."'),
    ],
)
def test_comments_format_and_other_functions_do_not_count(tmp_path: Path, before: str, after: str) -> None:
    text = f"# why\n{EVERYTHING}"
    assert text.count(before) == 1
    assert version(tmp_path, text).digest == version(tmp_path, text.replace(before, after)).digest


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        ("Say {{", "Say: {{", "agent ask"),
        ('{"b": {}, "a": {}}', '{"a": {}, "b": {}}', "agent ask"),
        ("Judge(True)", "Judge(False)", "agent judge"),
        ('"judge": END', '"judge": [When(lambda task: False, "ask"), END]', "workflow"),
        ("self._score(task))", "[self._score(task)])", "class Judge"),
        ('"fire"', '"earth"', "function clean"),
        ("2.5", "2.4", "class Judge"),
        ('"a+", re.I', '"a+"', "function clean"),
        ('BAD = "bad"', 'BAD = "worse"', "class Mood"),
        ("limit = {", 'limit = {"f", ', "function program.<locals>.<lambda>"),
        ("in limit", "not in limit", "function program.<locals>.<lambda>"),
        ("word in WORDS", "word not in WORDS", "function clean"),
        ("lambda task: True", "lambda task: task.seed", "function program.<locals>.<lambda>"),
    ],
)
def test_a_change_is_found_in_its_part(tmp_path: Path, before: str, after: str, part: str) -> None:
    assert EVERYTHING.count(before) == 1
    old, new = version(tmp_path, EVERYTHING), version(tmp_path, EVERYTHING.replace(before, after))
    assert old.digest != new.digest
    changed = [name for name in old.parts | new.parts if old.parts.get(name) != new.parts.get(name)]
    assert any(name.startswith(part) for name in changed), changed


@pytest.mark.parametrize(
    ("agent", "text", "told"),
    [
        ("FunctionAgent(math.sqrt)", "import math", "agent a, fn: the built-in function math.sqrt"),
        ("FunctionAgent(partial(pow, 2))", "", "agent a, function: the built-in function pow"),
        ("FunctionAgent(make())", "def make(): lock = Lock(); return lambda task: lock", "a lock: TypeError"),
        (
            "FunctionAgent(lambda task: next(NUMBERS))",
            "import itertools\nNUMBERS = itertools.count()",
            "state",
        ),
        ("FunctionAgent(lambda task: RANDOM)", "import random\nRANDOM = random.Random()", "a Random, whose"),
        (
            "FunctionAgent(lambda task: SEEN.append(task))",
            "SEEN = []",
            "SEEN: state, which a function changes",
        ),
        ("FunctionAgent(eval('lambda task: 1'))", "", "its source is not there; compared as code of Python"),
        (
            "FunctionAgent(lambda task: Bad())",
            "class Bad:\n    def __reduce_ex__(self, _): raise KeyboardInterrupt\nBAD = Bad()",
            "",
        ),
        ("Bad()", "class Bad:\n    act = 1\n    def __reduce_ex__(self, _): raise OSError('x')", "OSError"),
        ("LLMAgent('x', parse=int)", "", ""),
        ("LLMAgent('x', parse=float.fromhex)", "", "the built-in function float.fromhex"),
    ],
)
def test_what_is_not_covered_is_named(tmp_path: Path, agent: str, text: str, told: str) -> None:
    found = of_agent(tmp_path, agent, f"from threading import Lock\n{text}")
    assert any(told in line for line in found.uncovered) if told else not found.uncovered, found
    assert of_agent(tmp_path, agent, f"from threading import Lock\n{text}").digest == found.digest


def test_values_that_functions_change_are_no_part_of_the_program(tmp_path: Path) -> None:
    text = """
        COUNTS, SEEN = {}, []
        class Counting:
            def __init__(self): self.calls, self.limit = 0, 3
            async def act(self, task, services):
                self.calls += 1
                COUNTS[task.id] = 1
                return record(task)
        def record(task):
            SEEN.append(task)
            return Turn("", value=len(COUNTS))
        AGENT = Counting()
        def program(): return Program(Sequence("a"), {"a": AGENT})
    """
    before = version(tmp_path, text)
    module = sys.modules[f"module{next(NAMES) - 1}"]
    module.COUNTS[1], module.AGENT.calls = 1, 2
    module.SEEN.append(3)
    assert version_of(module.program()).digest == before.digest
    module.AGENT.limit = 4
    assert version_of(module.program()).digest != before.digest


def test_two_lambdas_in_one_line_are_told_apart(tmp_path: Path) -> None:
    text = "def program(): return Program(Loop('a', until={}, max_rounds=2, result={}), {'a': LLMAgent('x')})"
    until, result = "lambda task: task.seed", "lambda task: lambda other: task.label"
    found = version(tmp_path, text.replace("{}", until, 1).replace("{}", result, 1))
    assert [part for name, part in found.parts.items() if "lambda" in name] == [result, until]


def test_an_edit_after_the_import_is_not_taken_for_the_code_that_runs(tmp_path: Path) -> None:
    before = of_agent(tmp_path, "FunctionAgent(score)", "def score(task): return 1")
    name = f"module{next(NAMES) - 1}"
    path = tmp_path / f"{name}.py"
    path.write_text(path.read_text().replace("return 1", "return 2222"))
    after = version_of(sys.modules[name].program())
    assert "return 2222" not in after.parts["function score"]
    assert before.parts["function score"] == "def score(task):\n    return 1"
    assert any("source is not there" in line for line in after.uncovered)


def test_a_long_chain_of_functions_and_deep_values(tmp_path: Path) -> None:
    chain = (
        "\n".join(f"def f{n}(task): return f{n + 1}(task)" for n in range(500)) + "\ndef f500(task): return 7"
    )
    found = of_agent(tmp_path, "FunctionAgent(f0)", chain)
    assert found.parts["function f500"].endswith("return 7")
    assert not found.uncovered
    deep = "DEEP = []\nfor _ in range(5_000): DEEP = [DEEP]\ndef score(task): return DEEP"
    assert any(
        "values in values" in line for line in of_agent(tmp_path, "FunctionAgent(score)", deep).uncovered
    )


def test_a_program_without_a_file_is_compared_by_its_code(tmp_path: Path) -> None:
    code = (
        HEAD
        + "class Own:\n    async def act(self, task, services): return NUMBER\nNUMBER = 1\n"
        + (
            "from peerloom.runtime.versions.version import version_of\n"
            "v = version_of(Program(Sequence('a'), {'a': Own()})); print(v.digest, v.uncovered)"
        )
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    one, two, three = (
        subprocess.run([sys.executable, "-c", text], env=env, check=True, capture_output=True).stdout.decode()
        for text in (code, code, code.replace("NUMBER = 1", "NUMBER = 2"))
    )
    assert one == two
    assert one.split()[0] != three.split()[0]
    assert "class Own: its source is not there" in one


def test_secrets_are_not_written(tmp_path: Path) -> None:
    text = """
        API_KEY = "abcdefgh12345678"
        def call(task): return API_KEY, "sk-abcdefghijklmnop1234", OPTIONS
        OPTIONS = {"token": "hunter22", "url": "https://me:pass@host/"}
    """
    found = of_agent(tmp_path, "FunctionAgent(call)", text)
    for secret in ("abcdefgh12345678", "sk-abc", "hunter22", "me:pass"):
        assert secret not in str(found.parts)
    assert "function call, API_KEY: its name is that of a secret, so it is not written" in found.uncovered


def test_an_agent_names_what_identifies_it(tmp_path: Path) -> None:
    text = """
        from threading import Lock
        class Own:
            def __init__(self, size): self.lock, self.size = Lock(), size
            def program_state(self): return {"size": self.size}
            async def act(self, task, services): return Turn("", value=self.size)
    """
    one, two = of_agent(tmp_path, "Own(1)", text), of_agent(tmp_path, "Own(2)", text)
    assert one.digest != two.digest
    assert not one.uncovered


def test_a_module_of_the_user_is_followed_and_a_package_is_named(tmp_path: Path) -> None:
    helpers = tmp_path / "my_helpers.py"
    sys.path.insert(0, str(tmp_path))
    try:
        helpers.write_text(
            "import orjson\nBASE = 2\ndef double(value): return BASE * value\ndef other(): pass\n"
        )
        text = "import my_helpers, orjson\ndef score(task): return orjson.dumps(my_helpers.double(2))"
        found = of_agent(tmp_path, "FunctionAgent(score)", text)
    finally:
        sys.path.remove(str(tmp_path))
    assert found.parts["function double"] == "def double(value):\n    return BASE * value\nBASE = 2"
    assert "function other" not in found.parts
    assert found.packages == ["orjson"]


def test_prompts_have_digests_of_their_own(tmp_path: Path) -> None:
    one = of_agent(tmp_path, "LLMAgent('a {{ input.n }}', system='be brief', max_tokens=3)")
    two = of_agent(tmp_path, "LLMAgent('a {{ input.n }}', system='be brief', max_tokens=4)")
    three = of_agent(tmp_path, "LLMAgent('b {{ input.n }}', system='be brief', max_tokens=3)")
    assert one.prompts == two.prompts != three.prompts
    assert list(one.prompts) == ["a"]
    assert one.digest != two.digest


def test_a_template_is_the_same_from_a_file_anywhere(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ask.j2").write_text("a\n{{ input.n }}")
    one, two = (
        of_agent(tmp_path, f"LLMAgent(Path({str(tmp_path / each / 'ask.j2')!r}))", "from pathlib import Path")
        for each in ("one", "two")
    )
    assert one.digest == two.digest
    assert "a\n  {{ input.n }}" in one.parts["agent a"]


def test_large_values_are_digested(tmp_path: Path) -> None:
    text = "BIG = list(range(10_000))\ndef score(task): return BIG"
    one = of_agent(tmp_path, "FunctionAgent(score)", text)
    two = of_agent(
        tmp_path, "FunctionAgent(score)", text.replace("range(10_000)", "range(9_999)") + "\nBIG.append(0)"
    )
    assert one.parts["function score"].count("\n") < 3_000
    assert one.digest != two.digest
    huge = of_agent(tmp_path, "FunctionAgent(score)", text.replace("10_000", "300_000"))
    assert any("too many values" in line for line in huge.uncovered)
