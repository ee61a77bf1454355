"""Documents as rows: one file, one row, with its text and its path.

Text and Markdown are taken as they are; of a web page the main text and the title. A document that is
empty, too large, no text, or gone is a bad row.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peerloom.errors import SourceError
from peerloom.source.fingerprint import SAMPLES, WHOLE_BYTES, file_fingerprint
from peerloom.source.formats.html import NoText, decode_page, main_text
from peerloom.source.parts.part import CountedPart, Entry
from peerloom.source.storage.extras import need
from peerloom.source.storage.files import SourceFile, check_name, local_file, reading
from peerloom.source.storage.many import for_all

TEXT = (".txt", ".md")
HTML = (".html", ".htm")
LARGEST = 32 << 20
"""Bytes of a document above which it is a bad row; one row is in memory as a whole, several times over."""


class DocumentsPart(CountedPart):
    """Documents in their order.

    Args:
        files: the documents.
        root: what their paths are relative to, a folder or the beginning of a URL.
        name: what the user knows them by.
        html: whether all or none of them are web pages; by default those named so.

    Raises:
        SourceError: if there are web pages, and the extra `documents` is not installed.
    """

    kind = "documents"

    def __init__(self, files: Sequence[SourceFile], root: str, name: str, html: bool | None = None) -> None:
        self._files = list(files)
        self._root = root
        self._name = name
        self._html = html
        self.remote = any(file.remote for file in files)
        if any(map(self.is_html, self._files)) and find_spec("trafilatura") is None:
            need("trafilatura", "documents", "the main text of web pages")

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return self._name

    @property
    def count(self) -> int:
        """How many documents there are."""
        return len(self._files)

    def size_of(self, row: int) -> int:
        """The size of the file."""
        return max(1, self._files[row].size)

    def is_html(self, file: SourceFile) -> bool:
        """Whether a document is a web page."""
        return file.suffix.endswith(HTML) if self._html is None else self._html

    def open(self) -> "DocumentsPart":
        """Itself: each document is opened when it is read."""
        return self

    def close(self) -> None:
        """Nothing is open."""

    def read(self, rows: Sequence[int]) -> Iterator[Entry]:
        """The documents with these numbers."""
        for row in rows:
            file = self._files[row]
            try:
                value, error = self._document(file), ""
            except NoText as wrong:
                value, error = None, f"{file.name}: {wrong}"
            yield Entry(row, value, file.name, error)

    def describe(self) -> dict[str, Any]:
        """Where they are, how many, and how large together."""
        size = sum(max(0, file.size) for file in self._files)
        return {"path": self._root or self._name, "documents": self.count, "bytes": size}

    def fingerprint(self) -> dict[str, Any]:
        """Their names, sizes and content; of more than 256 MiB, the content of 64 of them."""
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
    """The documents below a folder, by path; hidden files and folders are passed over.

    Raises:
        SourceError: if a folder cannot be listed.
    """
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
        return 0  # a link to nowhere: a bad row when it is read
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _read(file: SourceFile) -> bytes:
    try:
        if not file.remote:
            local_file(file.path)  # refuses what is no regular file, which might never end
        with reading(file), file.open() as stream:
            data = stream.read(LARGEST + 1)
    except SourceError as error:
        if file.remote and not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise NoText(f"the file cannot be read: {error}") from error
    if len(data) > LARGEST:
        raise NoText(f"the file is larger than {LARGEST >> 20} MiB: split it, or write its parts as JSONL")
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
        raise NoText("there is a NUL character: it is no text")
    return text
