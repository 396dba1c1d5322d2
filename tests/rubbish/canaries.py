"""What leaves a trace where it is executed."""

import io
import os

import numpy as np

#: The file that appears where something that a case holds was executed.
CANARY = "executed"


class Canary:
    """What leaves a trace where it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {CANARY}",)


def canary_array() -> bytes:
    """An array of objects, which leave a trace where they are unpickled."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Canary(), None], dtype=object), allow_pickle=True)
    return buffer.getvalue()
