"""Our encoder beside sentence-transformers and ONNX Runtime: same texts, same threads, same run.

Not a test: machines differ and are noisy, so nothing fails for being slow, and every figure is a ratio within one run.
``engines`` says how each is loaded and called, ``trainers`` how each takes a training step, ``worker`` is a process
that holds one of them, ``texts`` makes texts of a given length, ``measure`` and ``training`` interleave the rounds,
``report`` prints them, ``picture`` draws. The verb is ``minisbert bench`` (extra ``bench``).
"""
