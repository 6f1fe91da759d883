"""Which element types of torch and numpy have a name in the safetensors format."""

import numpy as np
import torch

OF_TORCH = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
OF_NUMPY = {
    np.dtype(name): kind
    for name, kind in {
        "bool": "BOOL",
        "uint8": "U8",
        "int8": "I8",
        "int16": "I16",
        "int32": "I32",
        "int64": "I64",
        "uint16": "U16",
        "uint32": "U32",
        "uint64": "U64",
        "float16": "F16",
        "float32": "F32",
        "float64": "F64",
    }.items()
}
TORCH_OF = {kind: dtype for dtype, kind in OF_TORCH.items()}
NUMPY_OF = {kind: dtype for dtype, kind in OF_NUMPY.items()}

COMPLEX_PARTS = {"complex64": "F32", "complex128": "F64"}
"""A complex element is written as two of these: a last axis of (real, imaginary)."""
