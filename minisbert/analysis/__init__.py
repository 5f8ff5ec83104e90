"""What vectors tell about texts: how unusual a similarity is (``calibration``), and which words made it (``explain``).

Neither is needed to compute a vector; both only read what the encoder gives.
"""
