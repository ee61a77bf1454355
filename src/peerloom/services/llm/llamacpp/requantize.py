"""Convert weights to formats with faster kernels in llama.cpp.

llama.cpp has fast CPU kernels for Q4_0 and Q8_0, and none for Q4_1. A block of Q4_1 or Q4_0 holds 32 weights
as 4-bit numbers, the first 16 in the low halves of 16 bytes; it begins with a scale, and in Q4_1 an offset
follows. A block of Q8_0 is a scale and 32 signed bytes. The attention, a quarter of the weights, is converted
to Q8_0: this costs little time, and the replies stay closer to those of the source.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_Q4_0, _Q4_1, _Q8_0 = 2, 3, 8  # type numbers in the header of a tensor
_ATTENTION = ".attn_"  # part of a tensor's name
_MOSTLY_Q4_0 = 2  # type number of the file
_Q4_1_BYTES = 20  # size of a block


def requantize(source: Path, target: Path, report: Callable[[int], None]) -> None:
    """Write the GGUF file `source` to `target` with its Q4_1 tensors as Q4_0 or Q8_0, and fsync it.

    The result has the same bytes on any machine: only types and offsets change in the header, and the
    arithmetic consists of single float32 operations, as in llama.cpp's own quantizer.

    `report` is called after each tensor with the bytes written so far; it may raise to end the conversion.
    """
    gguf: Any = importlib.import_module("gguf")  # imports numpy, and is rarely needed
    reader = gguf.GGUFReader(source, "c")  # copy-on-write: the header changes in memory only
    reader.fields["general.file_type"].parts[-1][0] = _MOSTLY_Q4_0
    with target.open("wb") as out:
        out.seek(reader.data_offset)
        for tensor in reader.tensors:
            data = tensor.data
            *_, kind, offset = tensor.field.parts
            if kind[0] == _Q4_1:
                attention = _ATTENTION in tensor.name
                weights = _weights(data.reshape(-1, _Q4_1_BYTES))
                data, kind[0] = (_q8_0(weights), _Q8_0) if attention else (_q4_0(weights), _Q4_0)
            offset[0] = out.tell() - reader.data_offset
            out.write(data.tobytes())
            out.write(b"\0" * (-out.tell() % reader.alignment))
            report(out.tell())
        out.seek(0)
        out.write(reader.data[: reader.data_offset].tobytes())
        out.flush()
        os.fsync(out.fileno())


def _weights(blocks: Any) -> Any:
    """Return the weights of Q4_1 blocks, a row of bytes each, as rows of 32 float32."""
    np: Any = importlib.import_module("numpy")
    scale, offset = blocks[:, :4].copy().view(np.float16).astype(np.float32).T[..., None]
    numbers = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return scale * numbers.astype(np.float32) + offset


def _q4_0(weights: Any) -> Any:
    """Return rows of 32 weights as Q4_0 blocks, a row of bytes each."""
    np: Any = importlib.import_module("numpy")
    furthest = np.take_along_axis(weights, abs(weights).argmax(axis=1, keepdims=True), axis=1)
    scale = furthest / np.float32(-8)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    numbers = (weights * inverse + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    packed = numbers[:, :16] | (numbers[:, 16:] << 4)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), packed], axis=1)


def _q8_0(weights: Any) -> Any:
    """Return rows of 32 weights as Q8_0 blocks, a row of bytes each."""
    np: Any = importlib.import_module("numpy")
    scale = abs(weights).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    scaled = weights * inverse
    numbers = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), numbers.view(np.uint8)], axis=1)
