"""What vectors tell about texts, and what is learnt from them: one module each, none needed to compute a vector.

``calibration`` says how unusual a similarity is, ``explain`` which words made it. ``maps`` and ``clusters`` show many
texts at once. ``classifier`` and ``entities`` learn from labels, on vectors that stay as they are.
"""
