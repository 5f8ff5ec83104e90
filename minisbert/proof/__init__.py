"""The agreement ledger: every intermediate tensor beside PyTorch's.

``ledger`` compares and prints, ``torch_model`` asks PyTorch for its tensors under our names (extra ``verify``),
``record`` writes the recorded ones beside itself, and ``reading_path`` makes README's table from all that.
"""
