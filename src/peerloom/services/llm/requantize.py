"""Rewrites weights in a format that llama.cpp computes with faster.

llama.cpp has fast CPU kernels for Q4_0 and none for Q4_1. Both keep 32 weights in a block of 4-bit numbers,
the first 16 in the low halves of 16 bytes. A Q4_1 block begins with a scale and an offset, a Q4_0 block with
a scale only, so the weights are rounded once more.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_Q4_0, _Q4_1 = 2, 3  # in the header of a tensor
_MOSTLY_Q4_0 = 2  # of the file
_Q4_1_BYTES = 20  # of a block


def q4_1_to_q4_0(source: Path, target: Path, report: Callable[[int], None]) -> None:
    """Write the GGUF file `source` to `target` with its Q4_1 tensors as Q4_0, and fsync it.

    The same source gives the same bytes on any machine: only types and offsets change in the header, and the
    arithmetic is single steps in float32. It is that of llama.cpp's own quantizer.

    Args:
        source: a GGUF file.
        target: the file to write; replaced if it exists.
        report: called after each tensor with the bytes written so far; what it raises ends the conversion.

    Raises:
        OSError: if a file cannot be read or written.
    """
    gguf: Any = importlib.import_module("gguf")  # takes numpy along, and few calls come here
    reader = gguf.GGUFReader(source, "c")  # copy-on-write: the header is changed in memory only
    reader.fields["general.file_type"].parts[-1][0] = _MOSTLY_Q4_0
    with target.open("wb") as out:
        out.seek(reader.data_offset)
        for tensor in reader.tensors:
            data = tensor.data
            *_, kind, offset = tensor.field.parts
            if kind[0] == _Q4_1:
                data = _q4_0(data.reshape(-1, _Q4_1_BYTES))
                kind[0] = _Q4_0
            offset[0] = out.tell() - reader.data_offset
            out.write(data.tobytes())
            out.write(b"\0" * (-out.tell() % reader.alignment))
            report(out.tell())
        out.seek(0)
        out.write(reader.data[: reader.data_offset].tobytes())
        out.flush()
        os.fsync(out.fileno())


def _q4_0(blocks: Any) -> Any:
    """Q4_1 blocks, a row of bytes each, as Q4_0 blocks."""
    np: Any = importlib.import_module("numpy")
    scale, offset = blocks[:, :4].copy().view(np.float16).astype(np.float32).T[..., None]
    numbers = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    weights = scale * numbers.astype(np.float32) + offset
    furthest = np.take_along_axis(weights, abs(weights).argmax(axis=1, keepdims=True), axis=1)
    scale = furthest / np.float32(-8)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    numbers = (weights * inverse + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    packed = numbers[:, :16] | (numbers[:, 16:] << 4)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), packed], axis=1)
