"""Read small files that a user has named."""

from pathlib import Path

LARGEST_MIB = 64


def read_small_file(path: Path | str) -> bytes:
    """Return the content of a file of at most `LARGEST_MIB`; a device such as `/dev/zero` has no end.

    Raises:
        OSError: if it cannot be read, or is larger.
    """
    with open(path, "rb") as file:
        content = file.read((LARGEST_MIB << 20) + 1)
    if len(content) > LARGEST_MIB << 20:
        raise OSError(f"{path} is larger than {LARGEST_MIB} MiB")
    return content
