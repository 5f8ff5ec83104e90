"""Our encoder beside sentence-transformers and ONNX Runtime: same texts, same threads, same run.

Not a test: machines differ and are noisy, so nothing fails for being slow, and every ratio is one within a round.
``engines`` says how each is loaded and called and how it takes a training step, ``worker`` is a process that holds one
of them, ``run`` measures in interleaved rounds. The verb is ``minisbert bench`` (extra ``bench``).
"""
