"""The agreement ledger, every tensor beside PyTorch's, and where the time of a forward pass goes.

``ledger`` compares tensors with a reference and names the first that differs; ``steps`` does the same for a few steps
of training; ``reference`` asks PyTorch live, and writes what is recorded (extra ``verify``); ``profile`` times the
operations of a forward pass beside what this machine can do; ``student`` runs a student's function whatever it does,
and says what is wrong with its result.
"""

from minisbert.proof.ledger import compare, read_recorded, trace_tensors
from minisbert.proof.profile import profile

__all__ = ["compare", "profile", "read_recorded", "trace_tensors"]
