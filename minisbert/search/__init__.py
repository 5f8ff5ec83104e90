"""Find, pair, group and route by meaning, on vectors.

``nearest`` (search, close pairs, communities, matching: exact), ``documents`` and ``database`` (documents in one DuckDB
file), and routing by examples (``routes``, ``route_files``, ``router``, ``route_report``, ``route_fitting``).
"""

from minisbert.search.database import EmbeddingDatabase, Hit
from minisbert.search.documents import Document
from minisbert.search.nearest import community_detection, match, paraphrase_mining, semantic_search
from minisbert.search.route_files import read_routes
from minisbert.search.route_fitting import fit_thresholds
from minisbert.search.router import Router
from minisbert.search.routes import Route

__all__ = [
    "Document",
    "EmbeddingDatabase",
    "Hit",
    "Route",
    "Router",
    "community_detection",
    "fit_thresholds",
    "match",
    "paraphrase_mining",
    "read_routes",
    "semantic_search",
]
