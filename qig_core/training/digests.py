"""One digest for all that a module holds: whether a frozen one is still what it was."""

import blake3
import numpy as np
from torch import nn


def parameter_digest(module: nn.Module) -> str:
    """blake3, hex, of name, type, shape and bytes of every parameter and every saved buffer, in the state's order."""
    digest = blake3.blake3()
    for name, tensor in module.state_dict().items():
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return str(digest.hexdigest())
