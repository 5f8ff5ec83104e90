"""One text in, one vector out: the part of minisbert that is meant to be read, in this order.

``config`` (what the checkpoint says it is), ``checkpoint`` and ``params`` (bytes to named weights), ``tokens`` and
``wordpiece`` (text to token ids), ``ops``, ``bert``, ``pooling`` and ``modules`` (token ids to one vector),
``modules_json`` and ``folder`` (all of it, read from and written to one folder). A module imports only from modules
before it.
"""

from typing import Any, TypeAlias

import numpy.typing as npt

# NumPy's types cannot express shapes: they stand in comments and docstrings, where a test executes them.
Array: TypeAlias = npt.NDArray[Any]
"""Any NumPy array; letters such as ``(N, D)`` give the shape."""
