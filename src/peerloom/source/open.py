"""Open a source from the user's paths, detecting the format of each unless it is given.

A data set on the Hub is detected by its URL, a run or a saved data set by the content of its folder, and a
file by its suffix. Any other file is read as JSON Lines.
"""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal, get_args

from peerloom.errors import SourceError
from peerloom.source.finished import is_run, run_parts
from peerloom.source.formats.documents import HTML, TEXT, DocumentsPart, find_documents
from peerloom.source.formats.hub import DataSetPart, is_data_set, is_saved, parse_data_set
from peerloom.source.formats.jsonl import JsonlPart
from peerloom.source.formats.parquet import ParquetPart
from peerloom.source.formats.probing import check_formats
from peerloom.source.parts.combined import AnyPart, PartsSource
from peerloom.source.storage.files import SourceFile, expand, identity
from peerloom.source.storage.many import for_all
from peerloom.source.storage.urls import is_url

Format = Literal["auto", "jsonl", "parquet", "text", "html", "hf", "run"]
"""The format of files; `auto` detects it."""

_FORMATS = get_args(Format)
_DATA = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".parquet", ".arrow", ".csv")
_SAVED_SPLIT = re.compile(r"(?P<folder>.+)\?(?:split|name|revision)=")
_SUFFIXES: dict[str, tuple[str, ...]] = {"text": TEXT, "html": HTML, "auto": TEXT + HTML}
_LOCAL = re.compile(r"(?:file|local)://", re.IGNORECASE)


def open_source(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    key: str | None = None,
    field: str | None = None,
    format: Format = "auto",
    limit: int | None = None,
) -> PartsSource:
    """Open files, folders, URLs, data sets and finished runs as one source, in the order given.

    A file named twice is read once, at its first place.

    Args:
        path: a file (JSON Lines, Parquet, text, Markdown, HTML), by path or URL, or a pattern with `*` for
            several; a folder of documents; a finished run's directory; `hf://datasets/owner/name?split=...`.
        key: the field that labels a row; a row without it is a bad row.
        field: the dotted path of the field that becomes the row; a text becomes `{"text": ...}`.
        format: the format, instead of detecting it.
        limit: the number of rows to read, by position over the whole input; None for all.

    Raises:
        SourceError: if an input does not exist or is not in its format, a library is not installed, or
        `limit` is
            negative.
    """
    if format not in _FORMATS:
        raise SourceError(f"source.format={format}: there are {', '.join(_FORMATS)}")
    paths = [path] if isinstance(path, str | os.PathLike) else path
    seen: set[str] = set()
    parts = [
        part
        for each in paths
        for part in _parts(_LOCAL.sub("", os.fspath(each)), format, field is not None, seen)
    ]
    if not parts and not paths:
        raise SourceError("no source file was given: set source.path")
    check_formats(parts)
    return PartsSource(parts, key=key, field=field, limit=limit)


def _parts(path: str, format: Format, whole: bool, seen: set[str]) -> Iterator[AnyPart]:
    """Yield the parts of one path, without the files in `seen`, and add its files to `seen`."""
    saved = _SAVED_SPLIT.match(path)
    folder = os.path.expanduser(saved["folder"] if saved else path)
    if format == "hf" or (format == "auto" and is_data_set(path)):
        yield DataSetPart(parse_data_set(path))
    elif not is_url(path) and os.path.isdir(folder):
        yield from _folder(path, folder, format, whole, seen)
    elif format == "run":
        raise SourceError(f"{path} is not the directory of a run (source.format=run)")
    else:
        yield from _files(path, format, seen)


def _folder(path: str, folder: str, format: Format, whole: bool, seen: set[str]) -> Iterator[AnyPart]:
    if format == "run" or (format == "auto" and is_run(folder)):
        yield from run_parts(folder, whole)
    elif format == "auto" and is_saved(folder):
        yield DataSetPart(parse_data_set(path))
    elif format in _SUFFIXES:
        files = find_documents(folder, _SUFFIXES[format])
        _refuse_unclear(folder, files, format)
        files = _new(files, seen)
        if files:
            yield DocumentsPart(files, os.path.abspath(folder), path)
    else:
        example = os.path.join(folder, f"*.{format}")
        raise SourceError(f"{path} is a directory: name its files, as in {example}")


def _refuse_unclear(folder: str, files: Sequence[SourceFile], format: Format) -> None:
    """Raise SourceError for a folder without documents, or with both documents and data."""
    data = find_documents(folder, _DATA) if format == "auto" else []
    if not files:
        example = os.path.join(folder, "*" + os.path.splitext(data[0].path)[1] if data else "*.jsonl")
        suffixes = " ".join(_SUFFIXES[format])
        raise SourceError(
            f"{folder} is a directory without documents ({suffixes}): name its files, as in {example}"
        )
    if data:
        raise SourceError(
            f"{folder} has both documents ({files[0].name}) and data ({data[0].name}): "
            f"name the files to be read, or write source.format=text or html for the documents"
        )


def _files(pattern: str, format: Format, seen: set[str]) -> Iterator[AnyPart]:
    """Yield the parts of files; adjacent documents are one part."""
    files = _new(expand(pattern), seen)
    for kind, group in groupby(files, lambda file: _kind(file, format)):
        if kind == "parquet":
            yield from for_all(ParquetPart, list(group), remote=is_url(pattern))
        elif kind == "jsonl":
            yield from map(JsonlPart, group)
        else:
            html = None if format == "auto" else format == "html"
            yield DocumentsPart(list(group), _root(pattern), pattern, html)


def _new(files: Sequence[SourceFile], seen: set[str]) -> list[SourceFile]:
    found: list[SourceFile] = []
    for file in files:
        if identity(file) not in seen:
            seen.add(identity(file))
            found.append(file)
    return found


def _kind(file: SourceFile, format: Format) -> str:
    if format != "auto":
        return format
    if file.suffix.endswith((".parquet", ".pq")):
        return "parquet"
    return "documents" if file.suffix.endswith(TEXT + HTML) else "jsonl"


def _root(pattern: str) -> str:
    """Return the folder before the first wildcard of a pattern."""
    fixed = re.split(r"[*?\[]", pattern)[0]
    head = fixed[: fixed.rfind("/") + 1]
    return head if is_url(pattern) else os.path.abspath(os.path.expanduser(head or "."))
