"""Storage that is reached by a URL (s3://, gs://, https://, ...), through fsspec.

Credentials are found by each storage's own library, in the environment or its files. A URL that holds one
is refused before anything could repeat it.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import urlsplit

from peerloom.errors import SourceError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:://|::)")
_CREDENTIALS = re.compile(
    r"://[^/@\s]*:[^/@\s]*@"
    r"|://\S*[?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|sig|signature"
    r"|(?:access_?|auth_?)?token|api_?key|key|secret|password)=[^&\s]",
    re.IGNORECASE,
)


class Found(NamedTuple):
    """A file that a URL or a pattern of URLs names: its own URL, its size, if it can be read from within.

    `size` is in bytes, -1 if the server does not tell.
    """

    url: str
    size: int
    seekable: bool


def is_url(path: str) -> bool:
    """Whether it names storage by URL rather than a local path."""
    return _URL.match(path) is not None


def holds_credentials(text: str) -> bool:
    """Whether a URL in the text has a user's password, a token or a signature in it."""
    return _CREDENTIALS.search(text) is not None


def url_suffix(url: str) -> str:
    """What the URL's path ends with, in lower case, without what is asked of the server after it."""
    path = urlsplit(url).path if _is_http(url) else url
    return path.lower()


def find_urls(pattern: str) -> list[Found]:
    """The files that a URL names; `*` is a pattern.

    Raises:
        SourceError: if it holds credentials, the storage cannot be reached or needs a package that is not
            installed, or nothing is there.
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
            Found(fs.unstrip_protocol(name) if magic else pattern, *_extent(fs, name, info))
            for name, info in sorted(infos.items())
            if info.get("type") != "directory"
        ]
    if not files:
        what = "no file matches it" if magic else "it is a folder: name its files, as in .../*.parquet"
        raise SourceError(f"{pattern}: {what}")
    return files


def open_url(url: str, ranged: bool) -> BinaryIO:
    """The file at a URL, open for reading; only from its beginning if it is not `ranged`.

    Raises:
        SourceError: if it cannot be reached any more.
    """
    with _reaching(url):
        fs, path = _file_system(url)
        stream = {} if ranged or not _is_http(url) else {"block_size": 0}
        return cast("BinaryIO", fs.open(path, "rb", **stream))


def said(error: Exception) -> str:
    """What an error of a foreign library says, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _extent(fs: Any, name: str, info: dict[str, Any]) -> tuple[int, bool]:
    """A file's size, and whether parts of it can be asked for: of web servers, not all can tell."""
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
    """Whatever a storage's library raises, as an error that names the URL."""
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
        raise SourceError(f"{url} cannot be read: {said(error)}") from error


def _install(url: str, error: ImportError) -> str:
    known = cast("Any", import_module("fsspec.registry")).known_implementations
    protocol = re.split(r"::|:", url)[0].lower()
    module = str(known.get(protocol, {}).get("class", "")).split(".")[0]
    if module == "huggingface_hub":
        return "pip install 'peerloom[hub]'"
    return f"pip install {module}" if module not in {"", "fsspec"} else said(error)
