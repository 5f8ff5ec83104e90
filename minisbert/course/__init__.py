"""What the notebooks build on: exercises that say what is wrong, a runner, an edition for students, marks for a class.

The mathematics is the package's own; nothing here computes a vector. Each notebook has a module here, ``chapter_01.py``
to ``chapter_10.py``, with its exercises, their solutions and the results of typical mistakes: read it after the
notebook.
"""
