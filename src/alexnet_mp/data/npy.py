"""The header of a plain NumPy file, so that an array file is recognised byte for byte and nothing is ever unpickled."""

import io

import numpy as np

UINT8, UINT32, INT64, FLOAT64 = "|u1", "<u4", "<i8", "<f8"
_ITEM_BYTES = {UINT8: 1, UINT32: 4, INT64: 8, FLOAT64: 8}


def npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    """What a format 1.0 `.npy` file of this type and shape, in C order, begins with: as `numpy.save` writes it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    return header.getvalue()


def npy_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """The length of such a file."""
    items = 1
    for length in shape:
        items *= length
    return len(npy_header(kind, shape)) + items * _ITEM_BYTES[kind]
