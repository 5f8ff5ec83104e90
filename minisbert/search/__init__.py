"""Find, pair and group by meaning: exact search over vectors, and what is built on it."""
