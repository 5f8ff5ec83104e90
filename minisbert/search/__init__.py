"""Find, pair, group and route by meaning, on vectors.

In reading order: ``scoring``, ``exact`` (the k best), ``mining``, ``communities``, ``matching``; a database of
documents in one DuckDB file (``errors``, ``storage``, ``documents``, ``filters``, ``indexing``, ``memory``,
``searching``, ``database``); routing by examples (``routes``, ``route_files``, ``router``, ``route_report``,
``route_fitting``).
"""

from minisbert.search.database import EmbeddingDatabase
from minisbert.search.documents import Document
from minisbert.search.nearest import community_detection, match, paraphrase_mining, semantic_search
from minisbert.search.route_files import read_routes
from minisbert.search.route_fitting import fit_thresholds
from minisbert.search.router import Router
from minisbert.search.routes import Route
from minisbert.search.searching import Hit

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
