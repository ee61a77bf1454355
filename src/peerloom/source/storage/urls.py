"""Read storage behind URLs (s3://, gs://, https://, ...) through fsspec.

Each storage's library finds credentials in the environment or its own files. A URL that contains credentials
is refused before it could be written anywhere.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from peerloom.errors import SourceError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:://|::)")
_CREDENTIALS = re.compile(
    r"://[^/@\s]*:[^/@\s]*@"
    r"|://\S*[?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|sig|signature"
    r"|(?:access_?|auth_?)?token|api_?key|key|secret|password)=[^&\s]",
    re.IGNORECASE,
)


def is_url(path: str) -> bool:
    """Return whether a path is a URL."""
    return _URL.match(path) is not None


def holds_credentials(text: str) -> bool:
    """Return whether a URL in the text contains a password, a token or a signature."""
    return _CREDENTIALS.search(text) is not None


def url_suffix(url: str) -> str:
    """Return the URL in lower case, reduced to its path for HTTP, to be compared by `endswith`."""
    path = urlsplit(url).path if _is_http(url) else url
    return path.lower()


def find_urls(pattern: str) -> list[tuple[str, int, bool]]:
    """Return the files that a URL names, with `*` as a wildcard.

    Returns:
        For each its URL, its size in bytes (-1 if unknown), and whether byte ranges of it can be read.
    """
    if holds_credentials(pattern):
        raise SourceError(
            "a URL in the source holds credentials (a password, token or signature): leave them out; "
            "the storage's own library finds them in the environment or in its own files"
        )
    magic = "*" in pattern
    with _reaching(pattern):
        fs, path = _file_system(pattern)
        infos = cast(
            "dict[str, dict[str, Any]]", fs.glob(path, detail=True) if magic else {path: fs.info(path)}
        )
        files = [
            (fs.unstrip_protocol(name) if magic else pattern, *_extent(fs, name, info))
            for name, info in sorted(infos.items())
            if info.get("type") != "directory"
        ]
    if not files:
        problem = "no file matches it" if magic else "it is a folder: name its files, as in .../*.parquet"
        raise SourceError(f"{pattern}: {problem}")
    return files


def open_url(url: str, ranged: bool) -> BinaryIO:
    """Open the file at a URL for reading, as a stream unless it is `ranged`."""
    with _reaching(url):
        fs, path = _file_system(url)
        stream = {} if ranged or not _is_http(url) else {"block_size": 0}
        return cast("BinaryIO", fs.open(path, "rb", **stream))


def one_line(error: Exception) -> str:
    """Return an error's type and text on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _extent(fs: Any, name: str, info: dict[str, Any]) -> tuple[int, bool]:
    """Return a file's size, and whether byte ranges of it can be read, which not all web servers support."""
    size = info.get("size")
    if not isinstance(size, int) or info.get("partial") is False:
        return (size if isinstance(size, int) else -1), False
    if size > 1 and _is_http(name):
        try:
            with fs.open(name, "rb", cache_type="none") as file:
                file.seek(size - 1)
                file.read(1)
        except ValueError:
            return size, False
    return size, True


def _file_system(url: str) -> tuple[Any, str]:
    core = cast("Any", import_module("fsspec.core"))
    return core.url_to_fs(url)


@contextmanager
def _reaching(url: str) -> Generator[None]:
    """Convert errors of a storage's library to a SourceError that names the URL."""
    try:
        yield
    except SourceError:
        raise
    except ImportError as error:
        raise SourceError(f"{url} needs a package that is not installed: {_install(url, error)}") from error
    except FileNotFoundError as error:
        raise SourceError(f"{url}: there is no such file") from error
    except Exception as error:
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            raise SourceError(f"{url}: no storage is known by {url.partition(':')[0]}://") from error
        raise SourceError(f"{url} cannot be read: {one_line(error)}") from error


def _install(url: str, error: ImportError) -> str:
    known = cast("Any", import_module("fsspec.registry")).known_implementations
    protocol = re.split(r"::|:", url)[0].lower()
    module = str(known.get(protocol, {}).get("class", "")).split(".")[0]
    if module == "huggingface_hub":
        return "pip install 'peerloom[hub]'"
    return f"pip install {module}" if module not in {"", "fsspec"} else one_line(error)
