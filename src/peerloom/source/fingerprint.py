"""Identify a source by its content when a run is resumed, independent of its location and age.

Files up to 256 MiB are read completely, in less than a second. Of a larger file only samples are read, evenly
spaced and including both ends, so that the time does not grow with the size. Added, removed or moved rows
then change the size or the end; any other edit is detected only if it hits a sample or changes the size. For
a file behind a URL the threshold is 1 MiB, with fewer samples, since each is a request.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from peerloom.source.base import Source
from peerloom.source.storage.files import SourceFile, reading

WHOLE_BYTES = 256 << 20
SAMPLES = 64
SAMPLE_BYTES = 16 * 1024
REMOTE_WHOLE_BYTES = 1 << 20
REMOTE_SAMPLES = 8
_CHUNK = 1 << 20


def fingerprint(source: Source) -> dict[str, Any]:
    """Return JSON values that must be the same when a run over this source is resumed.

    They are the result of the source's `fingerprint()`, if it has this method, else of `describe()`. A key
    `limit` is the number of rows to read (None: all), and may grow.
    """
    method = getattr(source, "fingerprint", None)
    values = cast("Mapping[str, Any]", method() if callable(method) else source.describe())
    plain = orjson.loads(orjson.dumps(values, default=str, option=orjson.OPT_NON_STR_KEYS))
    return cast("dict[str, Any]", plain)


def file_fingerprint(file: SourceFile) -> dict[str, Any]:
    """Return a file's size in bytes and a digest of it, or of samples of a large file.

    Raises:
        SourceError: if it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with reading(file), file.open() as stream:
        size = file.size if file.remote else os.fstat(stream.fileno()).st_size
        whole = REMOTE_WHOLE_BYTES if file.remote else WHOLE_BYTES
        if size <= whole or not file.ranged:
            while data := stream.read(_CHUNK):
                digest.update(data)
        else:
            samples = REMOTE_SAMPLES if file.remote else SAMPLES
            for number in range(samples):
                stream.seek((size - SAMPLE_BYTES) * number // (samples - 1))
                digest.update(stream.read(SAMPLE_BYTES))
    return {"bytes": size, "digest": digest.hexdigest()}


def rows_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a digest of rows in the form of JSON lines."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        try:
            line = orjson.dumps(dict(row), option=orjson.OPT_NON_STR_KEYS)
        except (TypeError, ValueError):
            line = type(row).__name__.encode()  # a bad row, whose content does not matter
        digest.update(line + b"\n")
    return digest.hexdigest()
