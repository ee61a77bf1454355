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
    path = urlsplit(url).path if url.lower().startswith("http") else url
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
        names = cast("list[str]", sorted(fs.glob(path))) if magic else [path]
        infos = [(name, cast("dict[str, Any]", fs.info(name))) for name in names]
    files = [
        Found(fs.unstrip_protocol(name) if magic else pattern, *_reach(info))
        for name, info in infos
        if info.get("type") != "directory"
    ]
    if not files:
        what = "no file matches it" if magic else "it is a folder: name its files, as in .../*.parquet"
        raise SourceError(f"{pattern}: {what}")
    return files


def open_url(url: str) -> BinaryIO:
    """The file at a URL, open for reading.

    Raises:
        SourceError: if it cannot be reached any more.
    """
    with _reaching(url):
        fs, path = _file_system(url)
        return cast("BinaryIO", fs.open(path, "rb"))


def said(error: Exception) -> str:
    """What an error of a foreign library says, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _reach(info: dict[str, Any]) -> tuple[int, bool]:
    size = info.get("size")
    known = isinstance(size, int)
    return (size if known else -1), known and info.get("partial", True) is not False


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
