"""By what a source is known again when a run is resumed: what is in it, not where it is or how old.

Of a file above 256 MiB only samples are read, evenly spaced and with both ends, so that terabytes take as
long as megabytes: rows that were added, removed or moved are found out by the size and the end, any other
edit only if it hits a sample or changes the size. Smaller ones are read wholly, in less than a second.
Of a file behind a URL that is done above 1 MiB, with fewer samples, as each is a request.
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
    """What must be the same when a run over this source is resumed; JSON values.

    That is what the source's own `fingerprint()` says, if it has one, else its `describe()`. A key
    `limit` is the number of rows that are read (None: all), and may grow.

    Raises:
        SourceError: if a file cannot be read any more.
    """
    own = getattr(source, "fingerprint", None)
    said = cast("Mapping[str, Any]", own() if callable(own) else source.describe())
    plain = orjson.loads(orjson.dumps(said, default=str, option=orjson.OPT_NON_STR_KEYS))
    return cast("dict[str, Any]", plain)


def file_fingerprint(file: SourceFile) -> dict[str, Any]:
    """A file's size in bytes, and a digest of it; of a large file, of samples of it.

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
            for offset in _offsets(size, REMOTE_SAMPLES if file.remote else SAMPLES):
                stream.seek(offset)
                digest.update(stream.read(SAMPLE_BYTES))
    return {"bytes": size, "digest": digest.hexdigest()}


def rows_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """A digest of rows as the JSON they would be in a file."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        try:
            line = orjson.dumps(dict(row), option=orjson.OPT_NON_STR_KEYS)
        except (TypeError, ValueError):
            line = type(row).__name__.encode()  # a bad row, whatever is in it
        digest.update(line + b"\n")
    return digest.hexdigest()


def _offsets(size: int, samples: int) -> Sequence[int]:
    last = size - SAMPLE_BYTES
    return [last * number // (samples - 1) for number in range(samples)]
