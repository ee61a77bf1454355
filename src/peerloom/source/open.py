"""Open a source from the user's paths."""

import os
import re
from collections.abc import Sequence

from peerloom.errors import SourceError
from peerloom.source.combined import PartsSource
from peerloom.source.format import Opening, SourceFormat, find_format
from peerloom.source.probing import check_formats

_LOCAL = re.compile(r"(?:file|local)://", re.IGNORECASE)


def open_source(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    key: str | None = None,
    field: str | None = None,
    format: str | SourceFormat = "auto",
    limit: int | None = None,
) -> PartsSource:
    """Open files, folders, URLs, data sets, and finished runs as one source, in the order given.

    A file named twice is read once, at its first place.

    Args:
        path: a file (JSON Lines, JSON, CSV, Parquet, Arrow, text, Markdown, HTML), by path or URL, or a
            pattern with `*` for several; a folder of documents; a finished run's directory; the clone of a
            data set's repository; `hf://datasets/owner/name?split=...`.
        key: the field that labels a row; a row without it is a bad row.
        field: the dotted path of the field that becomes the row; a text becomes `{"text": ...}`.
        format: the format, or its name or import path, instead of detecting it.
        limit: the number of rows to read, by position over the whole input; None for all.

    Raises:
        ConfigError: if there is no such format.
        SourceError: if an input does not exist or is not in its format, a library is not installed, or
            `limit` is negative.
    """
    chosen = find_format(format)() if isinstance(format, str) else format
    paths = [path] if isinstance(path, str | os.PathLike) else path
    if not paths:
        raise SourceError("no source file was given: set source.path")
    opening = Opening(field)
    parts = [part for each in paths for part in chosen.parts(_LOCAL.sub("", os.fspath(each)), opening)]
    check_formats(parts)
    license = ", ".join(dict.fromkeys(opening.licenses)) or None
    return PartsSource(parts, key=key, field=field, limit=limit, license=license)
