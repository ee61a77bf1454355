"""The public door: every name is there, has a docstring, and importing the door costs little."""

import inspect
import subprocess
import sys

import peerloom


def test_all_public_names_exist_and_are_sorted() -> None:
    assert len(set(peerloom.__all__)) == len(peerloom.__all__)
    for name in peerloom.__all__:
        assert getattr(peerloom, name) is not None
    assert set(peerloom.__all__) <= set(dir(peerloom))


def test_no_other_name_leaks() -> None:
    public = {name for name in vars(peerloom) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(peerloom, name))}
    assert public - modules - {"TYPE_CHECKING", "Any"} <= set(peerloom.__all__)


def test_classes_and_functions_say_what_they_are_for() -> None:
    for name in peerloom.__all__:
        value = getattr(peerloom, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name


def test_every_error_is_public() -> None:
    from peerloom import errors

    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, Exception):
            assert name in peerloom.__all__


def test_the_door_is_light() -> None:
    heavy = {
        "ray",
        "omegaconf",
        "pydantic",
        "aiohttp",
        "jinja2",
        "rich",
        "typer",
        "xllamacpp",
        "uvloop",
    }
    code = f"import sys, peerloom; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout == "[]\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(peerloom, "no_such_name")
