"""Inputs of every kind with the same 23 rows, and how each is spoilt and changed."""

import bz2
import csv
import gzip
import io
import json
import lzma
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from peerloom import SourceFormat
from peerloom.stored import to_stored

COUNT = 23
ROWS = [{"n": n, "text": f"row {n} é"} for n in range(COUNT)]


def jsonl(rows: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(path: str | Path, rows: Sequence[dict[str, Any]], group: int = 4) -> None:
    with fsspec.open(str(path), "wb") as file:
        pq.write_table(pa.Table.from_pylist(list(rows)), file, row_group_size=group)


class Kind(ABC):
    """One kind of input in a folder, made when it is."""

    counted: ClassVar[bool] = True
    """Whether its rows are counted without reading them."""
    format: str = "auto"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(ROWS)

    @property
    @abstractmethod
    def path(self) -> str | list[str]: ...

    @abstractmethod
    def write(self, rows: Sequence[dict[str, Any]]) -> None: ...

    @abstractmethod
    def spoil(self, number: int) -> None:
        """Make one row a bad one."""

    def value(self, number: int) -> dict[str, Any]:
        return ROWS[number]


class Jsonl(Kind):
    counted = False

    @property
    def path(self) -> list[str]:
        return [str(self.folder / name) for name in ("a.jsonl", "b.jsonl.gz")]

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        first, second = (Path(path) for path in self.path)
        first.write_bytes(jsonl(rows[:9]) + b"\n")
        second.write_bytes(gzip.compress(jsonl(rows[9:])))

    def spoil(self, number: int) -> None:
        path = Path(self.path[0])
        lines = path.read_bytes().splitlines(keepends=True)
        lines[number] = b"{\n"
        path.write_bytes(b"".join(lines))


class Parquet(Kind):
    @property
    def path(self) -> str:
        return str(self.folder / "*.parquet")

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        parquet(self.folder / "a.parquet", rows[:9])
        parquet(self.folder / "b.parquet", rows[9:], group=100)

    def spoil(self, number: int) -> None:
        rows = [{**row, "text": row["text"].encode()} for row in ROWS]
        rows[number]["text"] = b"\xff\xd8"
        self.write(rows)


class Lines(Kind):
    """A plain and a compressed file of a format whose rows are found by reading."""

    counted = False
    names: ClassVar[tuple[str, str]]

    @property
    def path(self) -> list[str]:
        return [str(self.folder / name) for name in self.names]

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        first, second = (Path(path) for path in self.path)
        first.write_bytes(self.text(rows[:9]))
        second.write_bytes(self.pack(self.text(rows[9:])))

    def text(self, rows: Sequence[dict[str, Any]]) -> bytes:
        raise NotImplementedError

    def pack(self, data: bytes) -> bytes:
        return data


class JsonArray(Lines):
    names = ("a.json", "b.json")

    def text(self, rows: Sequence[dict[str, Any]]) -> bytes:
        return json.dumps(list(rows), indent=1).encode()

    def spoil(self, number: int) -> None:
        path = Path(self.path[0])
        path.write_text(path.read_text().replace(f'"n": {number},', '"n": NaN,'))


class JsonArrayXz(JsonArray):
    names = ("a.json", "b.json.xz")

    def pack(self, data: bytes) -> bytes:
        return lzma.compress(data)


class Table(Lines):
    """CSV with a line break, a quote, and a comma in each row."""

    names = ("a.csv", "b.csv")
    delimiter = ","

    def text(self, rows: Sequence[dict[str, Any]]) -> bytes:
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter=self.delimiter)
        writer.writerow(["n", "text"])
        writer.writerows([row["n"], self._long(row["text"])] for row in rows)
        return out.getvalue().encode()

    def value(self, number: int) -> dict[str, Any]:
        return {"n": str(number), "text": self._long(ROWS[number]["text"])}

    def spoil(self, number: int) -> None:
        path = Path(self.path[0])
        start = f"\n{number}{self.delimiter}".encode()
        path.write_bytes(path.read_bytes().replace(start, start + self.delimiter.encode(), 1))

    def _long(self, text: str) -> str:
        return text + '\n\n "two", three\t'


class Tabs(Table):
    names = ("a.tsv", "b.tsv.bz2")
    delimiter = "\t"

    def pack(self, data: bytes) -> bytes:
        return bz2.compress(data)


class Arrows(Kind):
    """An Arrow file of several batches, and a stream, as `datasets` writes it."""

    @property
    def path(self) -> list[str]:
        return [str(self.folder / name) for name in ("a.feather", "b.arrow")]

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        for path, part, new in zip(
            self.path, (rows[:9], rows[9:]), (pa.ipc.new_file, pa.ipc.new_stream), strict=True
        ):
            table = pa.Table.from_pylist(list(part))
            with pa.OSFile(path, "wb") as file, new(file, table.schema) as writer:
                writer.write_table(table, max_chunksize=4)

    def spoil(self, number: int) -> None:
        rows = [{**row, "text": row["text"].encode()} for row in ROWS]
        rows[number]["text"] = b"\xff\xd8"
        self.write(rows)


class Texts(Kind):
    @property
    def path(self) -> str:
        return str(self.folder)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        for number, row in enumerate(rows):
            name = self._name(number)
            name.parent.mkdir(exist_ok=True)
            name.write_text(row["text"])

    def spoil(self, number: int) -> None:
        self._name(number).write_bytes(b"caf\xe9")

    def value(self, number: int) -> dict[str, Any]:
        name = self._name(number).relative_to(self.folder)
        return {"text": ROWS[number]["text"], "path": str(name)}

    def _name(self, number: int) -> Path:
        return self.folder / f"{number // 10}" / f"{number:02d}.{'md' if number % 2 else 'txt'}"


class Pages(Texts):
    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        for number, row in enumerate(rows):
            text = f"<p>{row['text']} goes on for a while.</p>"
            page = f"<html><head><title>Page {number}</title></head><body>{text}</body></html>"
            self._name(number).write_text(page)

    def spoil(self, number: int) -> None:
        self._name(number).write_text("<html><body><script>1</script></body></html>")

    def value(self, number: int) -> dict[str, Any]:
        text = f"{ROWS[number]['text']} goes on for a while."
        return {"text": text, "path": f"{number:02d}.html", "title": f"Page {number}"}

    def _name(self, number: int) -> Path:
        return self.folder / f"{number:02d}.html"


class Saved(Kind):
    """A data set that the library `datasets` saved."""

    times = 0

    @property
    def path(self) -> str:
        return str(self.folder / f"saved-{self.times}")

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        import datasets

        self.times += 1  # a data set is not written where one is mapped
        datasets.Dataset.from_list(list(rows)).save_to_disk(self.path)

    def spoil(self, number: int) -> None:
        rows = [{**row, "text": row["text"].encode()} for row in ROWS]
        rows[number]["text"] = b"\xff\xd8"
        self.write(rows)


class Run(Kind):
    """A finished run, as it lies on disk."""

    counted = False

    @property
    def path(self) -> str:
        return str(self.folder / "run")

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        data = Path(self.path, "data")
        data.mkdir(parents=True, exist_ok=True)
        internal = Path(self.path, ".peerloom")
        internal.mkdir(exist_ok=True)
        Path(internal, "state.json").write_text('{"how": "finished"}')
        kept = [
            to_stored({"id": f"0-{n}-0", "input": {"n": row["n"]}, "result": row})
            for n, row in enumerate(rows)
        ]
        (data / "part-000-0001-0000.jsonl").write_bytes(jsonl(kept[:9]))
        (data / "part-000-0001-0001.jsonl").write_bytes(jsonl(kept[9:]))

    def spoil(self, number: int) -> None:
        path = Path(self.path, "data", "part-000-0001-0000.jsonl")
        lines = path.read_bytes().splitlines(keepends=True)
        lines[number] = b"{\n"
        path.write_bytes(b"".join(lines))


class Bucket(Kind):
    """JSON Lines and Parquet behind URLs."""

    counted = False

    @property
    def path(self) -> list[str]:
        return ["memory://bucket/a.jsonl", "memory://bucket/parquet/*.parquet", "memory://bucket/c.jsonl.gz"]

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        with fsspec.open("memory://bucket/a.jsonl", "wb") as file:
            file.write(jsonl(rows[:9]))
        parquet("memory://bucket/parquet/b.parquet", rows[9:15])
        with fsspec.open("memory://bucket/c.jsonl.gz", "wb") as file:
            file.write(gzip.compress(jsonl(rows[15:])))

    def spoil(self, number: int) -> None:
        lines = jsonl(ROWS[:9]).splitlines(keepends=True)
        lines[number] = b"{\n"
        with fsspec.open("memory://bucket/a.jsonl", "wb") as file:
            file.write(b"".join(lines))


class Mixed(Kind):
    """JSON Lines, Parquet and JSON Lines again: lines have positions, rows of Parquet need none."""

    counted = False

    @property
    def path(self) -> list[str]:
        return [str(self.folder / name) for name in ("a.jsonl", "b.parquet", "c.jsonl")]

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        (self.folder / "a.jsonl").write_bytes(jsonl(rows[:2]) + b"\n" + jsonl(rows[2:9]))
        parquet(self.folder / "b.parquet", rows[9:15])
        (self.folder / "c.jsonl").write_bytes(jsonl(rows[15:]))

    def spoil(self, number: int) -> None:
        rows = jsonl(ROWS[:9]).splitlines(keepends=True)
        rows[number] = b"{\n"
        (self.folder / "a.jsonl").write_bytes(b"".join(rows[:2]) + b"\n" + b"".join(rows[2:]))


class Array(SourceFormat):
    """A user's own format: a JSON array."""

    def rows(self, path: str) -> list[dict[str, Any]]:
        return json.loads(Path(path).read_text())


class Own(Kind):
    """An input of that format."""

    @property
    def path(self) -> str:
        return str(self.folder / "rows.json")

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        Path(self.path).write_text(json.dumps(rows))

    def spoil(self, number: int) -> None:
        rows = [dict(row) for row in ROWS]
        rows[number]["n"] = float("nan")
        self.write(rows)


KINDS: list[tuple[str, type[Kind]]] = [
    ("jsonl", Jsonl),
    ("json", JsonArray),
    ("json", JsonArrayXz),
    ("csv", Table),
    ("csv", Tabs),
    ("arrow", Arrows),
    ("parquet", Parquet),
    ("text", Texts),
    ("html", Pages),
    ("documents", Texts),
    ("hf", Saved),
    ("run", Run),
    ("auto", Bucket),
    ("auto", Mixed),
    ("kinds:Array", Own),
]
"""Every format with an input of it; a new one is a line here."""
