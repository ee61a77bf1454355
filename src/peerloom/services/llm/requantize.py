"""Rewrites weights in a format that llama.cpp computes with faster.

llama.cpp has fast CPU kernels for Q4_0 and none for Q4_1. Both keep 32 weights in a block of 4-bit numbers;
Q4_0 has no offset, so the weights are rounded once more.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def q4_1_to_q4_0(source: Path, target: Path, report: Callable[[int], None]) -> None:
    """Write the GGUF file `source` to `target` with its Q4_1 tensors as Q4_0, and fsync it.

    The same source gives the same bytes on any machine: only the types and offsets in the header change, and
    the arithmetic is that of llama.cpp's own quantizer, in float32.

    Args:
        source: a GGUF file.
        target: the file to write; replaced if it exists.
        report: called after each tensor with the bytes written so far; what it raises ends the conversion.

    Raises:
        OSError: if a file cannot be read or written.
    """
    import gguf  # noqa: PLC0415 - it takes numpy along, and few calls come here

    old, new = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q4_0
    reader = gguf.GGUFReader(source, "c")  # copy-on-write: the header is changed in memory only
    reader.fields["general.file_type"].parts[-1][0] = gguf.LlamaFileType.MOSTLY_Q4_0
    with target.open("wb") as out:
        out.seek(reader.data_offset)
        for tensor in reader.tensors:
            data: Any = tensor.data
            *_, kind, offset = tensor.field.parts
            if tensor.tensor_type == old:
                data = gguf.quants.quantize(gguf.quants.dequantize(data, old), new)
                kind[0] = new
            offset[0] = out.tell() - reader.data_offset
            out.write(data.tobytes())
            out.write(b"\0" * (-out.tell() % reader.alignment))
            report(out.tell())
        out.seek(0)
        out.write(reader.data[: reader.data_offset].tobytes())
        out.flush()
        os.fsync(out.fileno())
