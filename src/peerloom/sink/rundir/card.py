"""Write the card of a run directory, by which `datasets.load_dataset` loads it as it is.

The card is `README.md`: its front matter names the files and the Arrow type of each field, its body says how
the rows were made. A `README.md` that Peerloom has not written is left alone.
"""

import contextlib
import html
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import orjson
import yaml

from peerloom.errors import RunDirError
from peerloom.sink.files import write_atomically
from peerloom.sink.layout import DATA, README, REJECTED, RUN_YAML
from peerloom.sink.read import list_extents, parse_lines
from peerloom.sink.rundir.state import read_state, read_summary
from peerloom.stored import ROW_FIELDS

MARK = "# Written by Peerloom, and replaced by its next session. Remove this line to keep the file."
SAMPLES = 2
MAX_MESSAGES = 6
MAX_CHARACTERS = 300

_TICKS = re.compile("`+")


def is_card(path: Path) -> bool:
    """Return whether a file is a card that Peerloom wrote."""
    try:
        with path.open("rb") as file:
            return file.read(200).startswith(f"---\n{MARK}\n".encode())
    except OSError:
        return False


def write_card(run_dir: Path) -> None:
    """Write the card of a run as of now.

    Raises:
        SinkError: if it cannot be written.
        RunDirError: if the run directory cannot be read.
    """
    path = run_dir / README
    if path.exists() and not is_card(path):
        return
    sizes = {folder: int(sum(extent.end for extent in list_extents(run_dir, folder))) for folder in _CONFIGS}
    head = yaml.safe_dump(_front_matter(sizes), sort_keys=False, allow_unicode=True)
    write_atomically(path, f"---\n{MARK}\n{head}---\n\n{_body(run_dir)}".encode())


_CONFIGS = {DATA: "default", REJECTED: "rejected"}


def _front_matter(sizes: dict[str, int]) -> dict[str, Any]:
    """Return the metadata of the card.

    The first configuration must have files, so one with rows comes first. The size makes a card of other
    rows a different one: `datasets` would return the rows in its cache otherwise.
    """
    order = sorted(_CONFIGS.items(), key=lambda item: not sizes[item[0]])
    return {
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": f"{folder}/*.jsonl"}]}
            for folder, name in order
        ],
        "dataset_info": [
            {
                "config_name": name,
                "features": [_feature(*item) for item in ROW_FIELDS.items()],
                "dataset_size": sizes[folder],
            }
            for folder, name in order
        ],
        "tags": ["synthetic", "peerloom"],
    }


def _feature(name: str, type: Any) -> dict[str, Any]:
    """Return the type of a field as `datasets` writes it in cards."""
    if isinstance(type, str):
        return {"name": name, "dtype": type}
    kind, inner = ("list", cast("list[Any]", type)[0]) if isinstance(type, list) else ("struct", type)
    if isinstance(inner, str):
        return {"name": name, kind: inner}
    return {"name": name, kind: [_feature(*item) for item in cast("dict[str, Any]", inner).items()]}


def _body(run_dir: Path) -> str:
    facts = "\n".join(f"| {name} | {_cell(value)} |" for name, value in _facts(run_dir) if value)
    samples = "\n\n".join(map(_block, _samples(run_dir)))
    return f"""# {_cell(run_dir.name)}

Rows made with Peerloom. Load them with `datasets.load_dataset(PATH)`, those that did not complete with
`load_dataset(PATH, "rejected")`. `input`, `result`, and other fields without one type are JSON text.

| | |
|---|---|
{facts}
{
        f'''
## Samples

{samples}
'''
        if samples
        else ""
    }"""


def _facts(run_dir: Path) -> Iterator[tuple[str, Any]]:
    """Yield how the rows were made, and the figures of the last summary."""
    config: dict[str, Any] = {}
    with contextlib.suppress(OSError, yaml.YAMLError):
        config = yaml.safe_load((run_dir / RUN_YAML).read_bytes()) or {}
    state, summary = read_state(run_dir), read_summary(run_dir) or {}
    recipe: dict[str, Any] = config.get("recipe") or {}
    services: list[dict[str, Any]] = [config.get("llm") or {}, *(config.get("llms") or {}).values()]
    models = [state.model if state is not None else "", *(each.get("model") for each in services)]
    yield "recipe", recipe.get("name")
    yield "models", ", ".join(dict.fromkeys(str(model) for model in models if model))
    source: dict[str, Any] = config.get("source") or {}
    yield "license of the input", source.get("license")
    yield "programs", ", ".join(dict.fromkeys(digest for _, digest in state.programs)) if state else ""
    yield "seed", str(config.get("seed", ""))
    yield "Peerloom", state.peerloom if state is not None else ""
    for figure in ("outcomes", "tokens"):
        counts: dict[str, int] = summary.get(figure) or {}
        yield figure, ", ".join(f"{name} {number:,}" for name, number in counts.items())
    yield "calls", summary.get("llm_calls")
    yield "cost in dollars", summary.get("usd")


def _cell(value: Any) -> str:
    """Return a value as inert text of one line."""
    text = html.escape(" ".join(str(value).split()))
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)


def _samples(run_dir: Path) -> list[str]:
    """Return some completed rows, shortened, as JSON."""
    rows = (row for extent in list_extents(run_dir, DATA) for row in parse_lines(extent))
    with contextlib.suppress(RunDirError):  # a damaged row is no reason to have no card
        return [_shortened(row) for row in itertools.islice(rows, SAMPLES)]
    return []


def _shortened(row: dict[str, Any]) -> str:
    messages = [
        {"role": each.get("role"), "content": _short(each.get("content"))}
        for each in row["messages"][:MAX_MESSAGES]
    ]
    shown = {"messages": messages} if messages else {"input": _short(row["input"])}
    return orjson.dumps({**shown, "result": _short(row["result"])}, option=orjson.OPT_INDENT_2).decode()


def _short(value: Any) -> Any:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return f"{text[:MAX_CHARACTERS]}..." if len(text) > MAX_CHARACTERS else value


def _block(text: str) -> str:
    """Return a code block that the text cannot end."""
    fence = "`" * max(3, 1 + max(map(len, _TICKS.findall(text)), default=0))
    return f"{fence}json\n{text}\n{fence}"
