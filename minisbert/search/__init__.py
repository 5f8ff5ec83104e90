"""Find, pair, group and route by meaning, on vectors.

In reading order: ``scoring``, ``exact`` (the k best), ``mining``, ``communities``, ``matching``; a database of
documents in one DuckDB file (``errors``, ``storage``, ``documents``, ``filters``, ``indexing``, ``memory``,
``searching``, ``database``); routing by examples (``routes``, ``router``).
"""

from minisbert.search.communities import community_detection
from minisbert.search.database import EmbeddingDatabase
from minisbert.search.documents import Document
from minisbert.search.exact import semantic_search
from minisbert.search.matching import match
from minisbert.search.mining import paraphrase_mining
from minisbert.search.router import Router, evaluate_routes, fit_thresholds
from minisbert.search.routes import Route, read_routes, write_routes
from minisbert.search.searching import Hit

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
