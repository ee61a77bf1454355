"""Check the first lines of JSON Lines files, to detect other formats before a run starts."""

import json
from collections.abc import Iterable
from itertools import islice

from peerloom.errors import SourceError
from peerloom.source.formats.jsonl import JsonlPart
from peerloom.source.storage.lines import Line

_LINES = 10
_FILES = 20
_STARTS = {
    b"\xfd7zXZ": "xz: decompress it, for example with unxz",
    b"BZh": "bzip2: decompress it, for example with bunzip2",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\x1f\x8b": "gzip: let its name end in .jsonl.gz",
    b"\x28\xb5\x2f\xfd": "zstd: let its name end in .jsonl.zst",
    b"PAR1": "Parquet: let its name end in .parquet, or set source.format=parquet",
    b"\xff\xfe": "UTF-16: convert it, for example with iconv -t UTF-8",
    b"\xfe\xff": "UTF-16: convert it, for example with iconv -t UTF-8",
    b"[": "a JSON array: write each of its objects on a line, for example with jq -c '.[]'",
    b"{": "JSON over several lines: write each object on a line, for example with jq -c .",
}
_SUFFIXES = {
    (
        ".csv",
        ".tsv",
    ): "CSV: convert it, for example with pandas.read_csv(...).to_json(..., orient='records', lines=True)",
    (".yaml", ".yml"): "YAML: convert it, for example with yq -o=json -I=0 '.[]'",
}


def check_formats(parts: Iterable[object]) -> None:
    """Check that local JSON Lines files have at least one good line among their first ten."""
    files = (part for part in parts if isinstance(part, JsonlPart) and not part.remote)
    for part in islice(files, _FILES):
        lines = list(islice(part.lines(), _LINES))
        if lines and not lines[0].error and not any(_is_object(line) for line in lines):
            first = part.entry(lines[0])
            problem = first.error or f"{first.where}: a row must be a JSON object"
            raise SourceError(f"{part.name} is not JSON Lines. {_advice(part.name, lines[0])} ({problem})")


def _is_object(line: Line) -> bool:
    """Return whether a line is a JSON object, even if its values are not allowed in a row."""
    try:
        return isinstance(json.loads(line.data.decode(errors="replace")), dict)
    except ValueError:
        return False
    except RecursionError:
        return True


def _advice(name: str, line: Line) -> str:
    start = line.data.lstrip()
    for magic, advice in _STARTS.items():
        if start.startswith(magic):
            return f"It looks like {advice}"
    for suffixes, advice in _SUFFIXES.items():
        if name.lower().endswith(suffixes):
            return f"It looks like {advice}"
    return "Each line must be one JSON object; other formats are named by source.format"
