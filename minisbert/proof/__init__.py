"""The agreement ledger: every intermediate tensor beside PyTorch's.

``ledger`` compares and prints, ``torch_model`` asks PyTorch for its tensors under our names (extra ``verify``),
and ``record`` writes the recorded ones beside itself.

Where the time goes: ``ceiling`` measures what this machine can do, ``costs`` counts FLOP and bytes, ``profile`` holds
a clock to the lines of the model (``minisbert profile``).
"""
