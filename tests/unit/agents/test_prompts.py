import pickle
from pathlib import Path

import pytest

from peerloom.agents.prompts import Prompt, as_prompt
from peerloom.errors import ConfigError, PromptError
from peerloom.task import Header, Task, TaskId, Turn, new_task

ROW = {"question": "Why?", "options": ["a", "b"], "items": "a field of that name", "n": 3}


def task(*turns: Turn) -> Task:
    made = new_task(Header(TaskId(0, 1, 0)), ROW, seed=5)
    return made.with_turns(*turns) if turns else made


def test_a_template_sees_row_task_and_history():
    said = Turn("teacher", {"role": "assistant", "content": "hello"}, 7)
    text = (
        "{{ input.question }} {{ task.id }} {{ turns | length }} {{ last.text }} {{ task.value('teacher') }}"
    )
    assert Prompt(text).render(task(said)) == "Why? 0-1-0 1 hello 7"


def test_blocks_leave_no_blank_lines():
    text = "Options:\n{% for option in input.options %}\n{{ loop.index }}. {{ option }}\n{% endfor %}\n"
    assert Prompt(text).render(task()) == "Options:\n1. a\n2. b"


def test_an_attribute_of_an_object_is_its_field():
    assert Prompt("{{ input.items }}").render(task()) == "a field of that name"
    assert (
        Prompt("{% for name, _ in input|items %}{{ name }} {% endfor %}")
        .render(task())
        .startswith("question")
    )


@pytest.mark.parametrize("name", ["copy", "values", "keys", "get", "pop", "update", "__class__"])
def test_an_attribute_of_an_object_is_never_a_method(name: str):
    with pytest.raises(PromptError, match=f"<prompt>:1: there is no '{name}'"):
        Prompt(f"Say {{{{ input.{name} }}}}").render(task())


def test_null_is_not_written_as_a_word():
    with pytest.raises(PromptError, match="<prompt>:2: an expression is null"):
        Prompt("Say\n{{ none }}").render(task())
    assert Prompt("{{ none | default('nothing', true) }}").render(task()) == "nothing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ 'a' ~ none }}", "an expression is null"),
        ("{{ [none, 1] | join(',') }}", "an expression is null"),
        ("{{ input['get'] }}", "there is no 'get'"),
        ("{{ [input] | map(attribute='keys') | list }}", "there is no 'keys'"),
        ("{{ [input] | selectattr('keys') | list }}", "there is no 'keys'"),
        ("{{ input.question.title }}", "an expression is a builtin_function_or_method, not data: call it"),
        ("{{ input.options.index }}", "not data: call it"),
        ("{{ input.n.real }}", "int has no 'real'"),
        ("{{ task.value }}", "an expression is a method, not data: call it"),
        ("{{ task.raw_input }}", "an expression is a Raw, not data"),
        ("{{ range }}", "not data: call it"),
        ("{{ input.options | map('upper') }}", r"an expression is a generator, not data: .*\|list"),
        ("{{ '\\ud800' }}", "surrogates not allowed"),
    ],
)
def test_what_is_no_data_is_not_written(text: str, message: str):
    with pytest.raises(PromptError, match=message):
        Prompt(text).render(task())


def test_data_that_looks_like_no_data_is_written():
    row = {"text": "None <class at 0x", "rows": [{"n": 1}, {"n": 2}]}
    text = "{{ input.text ~ '!' }} {{ input.rows | join('+', attribute='n') }} {{ [none] }} {{ 'a'.upper() }}"
    made = new_task(Header(TaskId(0, 1, 0)), row, seed=5)
    assert Prompt(text).render(made) == "None <class at 0x! 1+2 [None] A"


def test_a_constant_that_cannot_be_computed_is_refused_when_made():
    with pytest.raises(ConfigError, match="<p>: ValueError"):
        Prompt("{{ 10**5000 }}", "<p>")


def test_absent_fields_may_be_asked_for():
    assert (
        Prompt("{% if input.hint is defined %}x{% endif %}{{ input.hint | default('none') }}").render(task())
        == "none"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\ntwo {{ input.quesion }}", r"<p>:2: there is no 'quesion'; did you mean 'question'\?"),
        ("{{ input.zzz }}", r"<p>:1: there is no 'zzz'; the fields are: question, options, items, n"),
        ("\n\n{% if input.zzz %}x{% endif %}", "<p>:3: there is no 'zzz'"),
        ("{{ last.text }}", "<p>:1: None has no 'text'"),
        ("{{ input.options[9] }}", "<p>:1: list has no '9'"),
        ("{{ input.question.zzz }}", "<p>:1: str has no 'zzz'"),
        ("{{ input.question + 3 }}", "<p>:1: TypeError"),
    ],
)
def test_what_fails_on_a_row_names_template_line_and_field(text: str, message: str):
    with pytest.raises(PromptError, match=message) as raised:
        Prompt(text, "<p>").render(task())
    assert (raised.value.outcome, raised.value.reason) == ("failed", "prompt")


@pytest.mark.parametrize(
    "text",
    [
        "{{ task.__class__.__mro__ }}",
        "{{ input.question.__class__ }}",
        "{{ input.options.append(1) }}",
        "{{ range(10000000) | list }}",
        "{{ task.value.__globals__ }}",
    ],
)
def test_a_template_is_kept_in_its_sandbox(text: str):
    with pytest.raises(PromptError, match=r"SecurityError|OverflowError"):
        Prompt(text).render(task())
    assert ROW["options"] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\n{% if input.a %}", "<p>:2: .*end"),
        ("{{ inptu.question }}", r"<p>: there is no 'inptu'; did you mean 'input'\?"),
        (
            "{{ question }}",
            "<p>: there is no 'question'; the template variables are: input, task, turns, last",
        ),
    ],
)
def test_what_can_never_work_is_refused_when_made(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        Prompt(text, "<p>")


def test_loops_and_own_names_are_no_unknown_variables():
    text = "{% set n = namespace(s=0) %}{% for i in range(3) %}{% set n.s = n.s + i %}{% endfor %}{{ n.s }}"
    assert Prompt(text).render(task()) == "3"


def test_a_path_is_the_file_it_names(tmp_path: Path):
    file = tmp_path / "ask.j2"
    file.write_text("Q: {{ input.question }}\n{{ input.zzz }}", "utf-8")
    with pytest.raises(PromptError, match=r"^ask.j2:2: "):
        as_prompt(file, "prompt").render(task())


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_unreadable_file_is_refused_by_name(tmp_path: Path, content: bytes | None):
    file = tmp_path / "ask.j2"
    if content:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ask\.j2: cannot be read as UTF-8 text"):
        Prompt.load(file)


def test_only_the_text_travels():
    prompt = Prompt("Q: {{ input.question }}", "ask.j2")
    data = pickle.dumps(prompt)
    assert len(data) < 200
    arrived = pickle.loads(data)
    assert arrived.render(task()) == "Q: Why?"
    assert repr(arrived) == "Prompt('Q: {{ input.question }}', 'ask.j2')"
    with pytest.raises(AttributeError):
        _ = arrived.other


def test_a_string_is_the_template_itself():
    prompt = as_prompt("{{ input.n }}", "opening")
    assert (prompt.render(task()), prompt.name) == ("3", "<opening>")
    assert as_prompt(prompt, "other") is prompt
