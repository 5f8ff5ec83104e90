"""Find, pair, group and route by meaning, on vectors.

`minisbert.nearest` (search, close pairs, communities, matching: exact), ``documents`` and ``database`` (documents in
one DuckDB file), and routing by examples (``routes``, ``router``).
"""

from minisbert.nearest import community_detection, match, paraphrase_mining, semantic_search
from minisbert.search.database import EmbeddingDatabase, Hit
from minisbert.search.documents import Document
from minisbert.search.router import Router, evaluate_routes, fit_thresholds
from minisbert.search.routes import Route, read_routes, write_routes

__all__ = [
    "Document",
    "EmbeddingDatabase",
    "Hit",
    "Route",
    "Router",
    "community_detection",
    "evaluate_routes",
    "fit_thresholds",
    "match",
    "paraphrase_mining",
    "read_routes",
    "semantic_search",
    "write_routes",
]
