"""Read documents as rows: one row for each file, with its text and path.

Text and Markdown are unchanged; from a web page, the main text and the title are extracted. A document that
is empty, too large, not text, or missing is a bad row.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from peerloom.errors import SourceError
from peerloom.source.fingerprint import SAMPLES, WHOLE_BYTES, file_fingerprint
from peerloom.source.format import FileFormat, Opening
from peerloom.source.pages import NoText, decode_page, main_text
from peerloom.source.parts.part import OpenPart, RawRow
from peerloom.source.storage.extras import import_extra
from peerloom.source.storage.files import (
    SourceFile,
    check_name,
    expand,
    for_all,
    local_file,
    maybe_compressed,
    reading,
)
from peerloom.source.storage.urls import is_url

TEXT = (".txt", ".md")
HTML = (".html", ".htm")
_DATA = (
    *maybe_compressed(".jsonl", ".ndjson", ".json", ".csv", ".tsv"),
    *(".parquet", ".pq", ".arrow", ".feather"),
)
MAX_BYTES = 32 << 20
"""The size above which a document is a bad row; memory holds several copies of a row."""


class Documents(FileFormat):
    """Text and web pages, told apart by suffix: files, or all in a folder."""

    suffixes = TEXT + HTML
    in_folder: ClassVar[tuple[str, ...]] = TEXT + HTML
    """The ends of the names of files that are read in a folder."""
    html: ClassVar[bool | None] = None
    """Whether all or none of the files are web pages; None to decide by suffix."""

    def parts(self, path: str, opening: Opening) -> Iterable["DocumentsPart"]:
        """Return one part with the documents of a folder, or with files."""
        folder = os.path.expanduser(path)
        if not os.path.isdir(folder):
            return self.file_parts(opening.new(expand(path)), path)
        files = find_documents(folder, self.in_folder)
        self._refuse_unclear(folder, files)
        files = opening.new(files)
        return [DocumentsPart(files, os.path.abspath(folder), path)] if files else []

    def file_parts(self, files: Sequence[SourceFile], pattern: str) -> Iterable["DocumentsPart"]:
        """Return one part with all files."""
        return [DocumentsPart(files, _root(pattern), pattern, self.html)] if files else []

    def _refuse_unclear(self, folder: str, files: Sequence[SourceFile]) -> None:
        """Raise SourceError for a folder without documents, or with both documents and data."""
        data = find_documents(folder, _DATA) if self.html is None else []
        if not files:
            example = os.path.join(folder, "*" + os.path.splitext(data[0].path)[1] if data else "*.jsonl")
            suffixes = " ".join(self.in_folder)
            raise SourceError(
                f"{folder} is a directory without documents ({suffixes}): name its files, as in {example}"
            )
        if data:
            raise SourceError(
                f"{folder} has both documents ({files[0].name}) and data ({data[0].name}): "
                f"name the files to be read, or write source.format=text or html for the documents"
            )


class DocumentsPart(OpenPart):
    """A part that consists of documents.

    Args:
        files: the documents, in order.
        root: the folder or URL prefix to which their paths are relative.
        name: the name given by the user.
        html: whether all or none of them are web pages; None to decide by suffix.
    """

    kind = "documents"

    def __init__(self, files: Sequence[SourceFile], root: str, name: str, html: bool | None = None) -> None:
        self._files = list(files)
        self._root = root
        self.name = name
        self.count = len(self._files)
        self._html = html
        self.remote = any(file.remote for file in files)
        if any(map(self.is_html, self._files)) and find_spec("trafilatura") is None:
            import_extra("trafilatura", "documents", "the main text of web pages")

    def size_of(self, row: int) -> int:
        """Return the size of the file."""
        return max(1, self._files[row].size)

    def is_html(self, file: SourceFile) -> bool:
        """Return whether a document is a web page."""
        return file.suffix.endswith(HTML) if self._html is None else self._html

    def read(self, rows: Sequence[int]) -> Iterator[RawRow]:
        """Yield the documents with these numbers."""
        for row in rows:
            file = self._files[row]
            try:
                value, error = self._document(file), ""
            except NoText as reason:
                value, error = None, f"{file.name}: {reason}"
            yield RawRow(row, value, file.name, error)

    def describe(self) -> dict[str, Any]:
        """Describe the documents by root, number and total size."""
        size = sum(max(0, file.size) for file in self._files)
        return {"path": self._root or self.name, "documents": self.count, "bytes": size}

    def fingerprint(self) -> dict[str, Any]:
        """Return a digest of names, sizes and contents; above 256 MiB, only about 64 contents are read."""
        digest = hashlib.blake2b(digest_size=16)
        size = sum(max(0, file.size) for file in self._files)
        step = 1 if size <= WHOLE_BYTES else max(1, self.count // SAMPLES)
        contents = for_all(_content, self._files[::step], remote=self.remote)
        for number, file in enumerate(self._files):
            content = contents[number // step] if number % step == 0 else ""
            digest.update(f"{self._path(file)}\0{file.size}\0{content}\n".encode("utf-8", "surrogateescape"))
        return {"documents": self.count, "bytes": size, "digest": digest.hexdigest()}

    def _document(self, file: SourceFile) -> dict[str, str]:
        data = _read(file)
        path = self._path(file).encode("utf-8", "replace").decode()
        if self.is_html(file):
            title, text = main_text(decode_page(data))
            return {"text": text, "path": path, "title": title}
        text = _decoded(data)
        if not text.strip():
            raise NoText("the file is empty")
        return {"text": text, "path": path}

    def _path(self, file: SourceFile) -> str:
        if file.remote:
            return file.path.removeprefix(self._root)
        return os.path.relpath(file.path, self._root)


def find_documents(folder: str, suffixes: tuple[str, ...]) -> list[SourceFile]:
    """Return the documents below a folder, sorted by path; hidden files and folders are skipped."""
    found: list[SourceFile] = []

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                path = os.path.join(where, name)
                check_name(path)
                found.append(SourceFile(os.path.abspath(path), path, _size(path)))
    return sorted(found, key=lambda file: Path(file.path).parts)


def _content(file: SourceFile) -> str:
    return str(file_fingerprint(file)["digest"]) if file.remote or os.path.isfile(file.path) else "none"


def _size(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return 0  # a broken link becomes a bad row when it is read
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _read(file: SourceFile) -> bytes:
    try:
        if not file.remote:
            local_file(file.path)  # raises for a path that is not a regular file, which might never end
        with reading(file), file.open() as stream:
            data = stream.read(MAX_BYTES + 1)
    except SourceError as error:
        if file.remote and not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise NoText(f"the file cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise NoText(f"the file is larger than {MAX_BYTES >> 20} MiB: split it, or write its parts as JSONL")
    if not data:
        raise NoText("the file is empty")
    return data


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NoText(
            f"not UTF-8 at byte {error.start} (0x{data[error.start]:02x}): "
            "convert the file, for example with iconv -t UTF-8"
        ) from error
    if "\0" in text:
        raise NoText("it contains a NUL character, so it is not text")
    return text


def _root(pattern: str) -> str:
    """Return the folder before the first wildcard of a pattern."""
    fixed = re.split(r"[*?\[]", pattern)[0]
    head = fixed[: fixed.rfind("/") + 1]
    return head if is_url(pattern) else os.path.abspath(os.path.expanduser(head or "."))


FORMAT = Documents
