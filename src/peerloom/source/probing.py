"""Detect files in formats that are not read, by name or by their first lines, before a run starts."""

import json
from collections.abc import Iterable
from itertools import islice

from peerloom.errors import SourceError
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.storage.files import SourceFile
from peerloom.source.storage.lines import Line

_LINES = 10
_FILES = 20
_STARTS = {
    b"\xfd7zXZ": "xz: let its name end in .jsonl.xz",
    b"BZh": "bzip2: let its name end in .jsonl.bz2",
    b"SQLite format 3": "SQLite",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip: let its name end in .jsonl.gz",
    b"\x28\xb5\x2f\xfd": "zstd: let its name end in .jsonl.zst",
    b"PAR1": "Parquet: let its name end in .parquet, or set source.format=parquet",
    b"ARROW1": "Arrow: let its name end in .arrow, or set source.format=arrow",
    b"version https://git-lfs": "a pointer of Git LFS: run git lfs pull in its folder",
    b"\xff\xfe": "UTF-16: convert it, for example with iconv -t UTF-8",
    b"\xfe\xff": "UTF-16: convert it, for example with iconv -t UTF-8",
    b"[": "a JSON array: let its name end in .json, or set source.format=json",
    b"{": "JSON over several lines: write each object on a line, for example with jq -c .",
}
_UNPACK = "unpack it, and name the files in it"
_PANDAS = "write it as Parquet, for example with pandas.{}(...).to_parquet(...)"
_UNSUPPORTED: dict[tuple[str, ...], tuple[str, str]] = {
    (".db", ".sqlite", ".sqlite3", ".duckdb"): (
        "a database",
        "export the table, for example with sqlite3 -csv -header FILE 'SELECT * FROM table' > rows.csv",
    ),
    (".xlsx", ".xls", ".xlsm", ".ods"): (
        "a spreadsheet",
        "save the sheet as CSV, or " + _PANDAS.format("read_excel"),
    ),
    (".yaml", ".yml"): ("YAML", "convert it, for example with yq -o=json -I=0 '.[]' FILE > rows.jsonl"),
    (".xml",): ("XML", _PANDAS.format("read_xml")),
    (".avro",): ("Avro", "convert it to Parquet or JSON Lines"),
    (".orc",): ("ORC", _PANDAS.format("read_orc")),
    (".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz", ".joblib"): (
        "a Python object",
        "load it in Python, and give its rows to peerloom.run(source=...)",
    ),
    (".h5", ".hdf5"): ("HDF5", _PANDAS.format("read_hdf")),
    (".tfrecord", ".tfrecords"): ("TFRecord", "convert it to Parquet or JSON Lines"),
    (".zip", ".tar", ".tgz", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz", ".7z", ".rar"): (
        "an archive",
        _UNPACK,
    ),
    (".pdf", ".docx", ".doc", ".epub", ".odt", ".pptx"): (
        "a document that is no text",
        "convert it to text or HTML, for example with pandoc or pdftotext",
    ),
    (".toml",): ("TOML", "write its tables as JSON Lines"),
    (".warc", ".warc.gz", ".lz4", ".br"): ("an archive", _UNPACK),
}


def refuse_unsupported(file: SourceFile) -> None:
    """Raise SourceError for a file whose name ends as those of a format that cannot be read."""
    for suffixes, (kind, advice) in _UNSUPPORTED.items():
        if file.suffix.endswith(suffixes):
            raise SourceError(
                f"{file.name} is {kind}, a format that is not read: {advice}. "
                "If it is JSON Lines in spite of its name, set source.format=jsonl"
            )


def check_formats(parts: Iterable[object]) -> None:
    """Check that local JSON Lines files have at least one good line among their first ten."""
    files = (part for part in parts if type(part) is JsonlPart and not part.remote)
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
    for suffixes, (kind, advice) in _UNSUPPORTED.items():
        if name.lower().endswith(suffixes):
            return f"It looks like {kind}: {advice}"
    return "Each line must be one JSON object; other formats are named by source.format"
