"""A retrieval benchmark in BEIR's layout: documents, queries, and relevance judgements.

===========================  ========================================================================================
file                         holds
===========================  ========================================================================================
``corpus.jsonl``             a document per line: ``_id``, ``text``, and perhaps ``title``
``queries.jsonl``            a query per line: ``_id``, ``text``
``qrels/SPLIT.tsv``          a judgement per row under a header: query, document, grade (0: judged, not relevant)
===========================  ========================================================================================

``qrels_SPLIT.tsv`` next to the other two is read as well, and ``qrels.tsv`` for the split "test"; files may be
compressed (.gz). BEIR's columns are query-id, corpus-id, score; `QRELS_COLUMNS` lists other names, and the set records
which column was the grade. Reading is strict, because a lost judgement silently changes a score: a repeated id, or a
judgement of an unknown one, is an error with file and line. Queries without judgements in the split are left out, as in
every published evaluation; empty documents stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minisbert.checks import each_text
from minisbert.tables import InputError, checked_text, read_table

__all__ = ["QRELS_COLUMNS", "RetrievalSet", "read_retrieval"]

QRELS_COLUMNS = {
    "query": ("query-id", "query_id", "qid"),
    "document": ("corpus-id", "corpus_id", "doc-id", "doc_id", "docid"),
    "grade": ("score", "grade", "relevance", "relevant"),
}
"""Known column names of judgements; the first that a file has is used."""


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, queries, and judgements of some documents for each query."""

    name: str
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]  # one text each
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    qrels: Mapping[str, Mapping[str, int]]  # query id to document id to grade; 0 is judged, not relevant
    source: str = "given in memory"  # of the judgements and grades, in words
    with_title: bool = True  # whether a document is its title and its text
    titles_repeated: int = 0  # documents whose text begins with their title
    queries_left_out: int = 0  # queries without a judgement in this split

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        for side in ("documents", "queries"):
            object.__setattr__(self, side, tuple(each_text(getattr(self, side), f"RetrievalSet: {side}")))
        for kind, ids, texts in (
            ("document", self.document_ids, self.documents),
            ("query", self.query_ids, self.queries),
        ):
            if not ids or len(ids) != len(texts):
                raise ValueError(f"RetrievalSet: {len(ids)} {kind} ids for {len(texts)} texts; expected at least one")
            if len(set(ids)) < len(ids):
                raise ValueError(f"RetrievalSet: a {kind} id occurs twice")
        if set(self.qrels) != set(self.query_ids):
            odd = sorted(set(self.qrels) ^ set(self.query_ids))[0]
            raise ValueError(f"RetrievalSet: expected judgements for exactly the queries, but not so for {odd!r}")
        known = set(self.document_ids)
        for query, grades in self.qrels.items():
            for document, grade in grades.items():
                if document not in known or isinstance(grade, bool) or not isinstance(grade, int) or grade < 0:
                    raise ValueError(
                        f"RetrievalSet: query {query!r}: document {document!r} with grade {grade!r}: "
                        "expected a known document and a whole number from 0 up"
                    )

    @property
    def judgements(self) -> int:
        """Number of judged pairs of query and document."""
        return sum(map(len, self.qrels.values()))


def read_retrieval(
    folder: str | Path, split: str = "test", *, with_title: bool = True, grade_column: str | None = None
) -> RetrievalSet:
    r"""Read a folder in BEIR's layout.

    Parameters
    ----------
    folder : str or path
        With corpus.jsonl, queries.jsonl and qrels (see the top of this module). Its name becomes the set's.
    split : str
        Of the judgements.
    with_title : bool
        A document is ``title + " " + text`` (BEIR's and MTEB's protocol), or the text alone.
    grade_column : str, optional
        By default the first of `QRELS_COLUMNS` in the file.

    Raises
    ------
    InputError
        A ValueError with file and line: missing or empty files, fields that are not strings, repeated ids, judgements
        of unknown queries or documents, grades that are not integers from 0.

    Notes
    -----
    **Source**: Thakur et al. 2021 (BEIR), ``beir.datasets.data_loader.GenericDataLoader``; MTEB joins title and text in
    the same way.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "corpus.jsonl").write_text('{"_id": "d1", "title": "Soup", "text": "Boil it."}')
    >>> _ = (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "how?"}')
    >>> _ = (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2")
    >>> found = read_retrieval(folder)
    >>> found.documents, found.qrels, found.source
    (('Soup Boil it.',), {'q1': {'d1': 2}}, "qrels.tsv, grade column 'score'")
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with corpus.jsonl, queries.jsonl and qrels")
    titles, documents = _read_documents(_find(folder, ["corpus.jsonl"]))
    queries = _read_queries(_find(folder, ["queries.jsonl"]))
    names = [f"qrels/{split}.tsv", f"qrels_{split}.tsv", *(["qrels.tsv"] if split == "test" else [])]
    qrels_file = _find(folder, names)
    qrels, column = _read_qrels(qrels_file, documents, queries, grade_column)
    repeated = sum(bool(title) and documents[name].startswith(title) for name, title in titles.items())
    if with_title:
        documents = {name: f"{titles[name]} {text}".strip() for name, text in documents.items()}
    judged = {name: text for name, text in queries.items() if name in qrels}
    return RetrievalSet(
        name=folder.resolve().name,
        document_ids=tuple(documents),
        documents=tuple(documents.values()),
        query_ids=tuple(judged),
        queries=tuple(judged.values()),
        qrels=qrels,
        source=f"{qrels_file.relative_to(folder).as_posix()}, grade column {column!r}",
        with_title=with_title,
        titles_repeated=repeated,
        queries_left_out=len(queries) - len(judged),
    )


def _find(folder: Path, names: list[str]) -> Path:
    """The first file that exists, plain or compressed."""
    for name in names:
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                return file
    raise InputError(f"{folder}: no {' and no '.join(names)} (nor .gz); does the folder have BEIR's layout?")


def _read_documents(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read titles and texts, each by document id."""
    titles: dict[str, str] = {}
    texts: dict[str, str] = {}
    for line, (document, title, text) in read_table(file).pick(["_id", "title", "text"], optional={"title": ""}):
        where = f"{file}, line {line}"
        name = _new_id(document, texts, where)
        titles[name] = checked_text(title or "", "title", where)  # null means no title in some sets
        texts[name] = checked_text(text, "text", where)
    return titles, _not_empty(texts, file, "documents")


def _read_queries(file: Path) -> dict[str, str]:
    """Read texts by query id."""
    texts: dict[str, str] = {}
    for line, (query, text) in read_table(file).pick(["_id", "text"]):
        where = f"{file}, line {line}"
        texts[_new_id(query, texts, where)] = checked_text(text, "text", where)
    return _not_empty(texts, file, "queries")


def _new_id(value: object, known: Mapping[str, object], where: str) -> str:
    """Check an id; a number counts as its digits, because a TSV cannot tell them apart."""
    name = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: the field '_id' must be a non-empty string or a whole number, got {value!r}")
    if name in known:
        raise InputError(f"{where}: the id {name!r} occurs twice")
    return name


def _not_empty(texts: dict[str, str], file: Path, what: str) -> dict[str, str]:
    if not texts:
        raise InputError(f"{file}: empty; expected {what}, one JSON object per line")
    return texts


def _read_qrels(
    file: Path, documents: Mapping[str, str], queries: Mapping[str, str], grade_column: str | None
) -> tuple[dict[str, dict[str, int]], str]:
    """Read the judgements, and the name of the grade column."""
    table = read_table(file)
    hint = "expected a header with " + " or ".join(name for names in QRELS_COLUMNS.values() for name in names)
    asked = {"grade": grade_column}
    chosen = [table.find(kind, asked.get(kind), usual, hint) for kind, usual in QRELS_COLUMNS.items()]
    column = chosen[2]
    qrels: dict[str, dict[str, int]] = {}
    for line, (query, document, grade) in table.pick(chosen):
        where = f"{file}, line {line}"
        for kind, name, known, home in (
            ("query", query, queries, "queries.jsonl"),
            ("document", document, documents, "corpus.jsonl"),
        ):
            if name not in known:
                raise InputError(
                    f"{where}: judges the {kind} {name!r}, which is not in {home}; do the files belong together?"
                )
        grades = qrels.setdefault(query, {})
        if document in grades:
            raise InputError(f"{where}: query {query!r} and document {document!r} are judged twice")
        grades[document] = _grade(grade, column, where)
    if not qrels:
        raise InputError(f"{file}: empty; expected judgements, a row each")
    return qrels, column


def _grade(text: str, column: str, where: str) -> int:
    """Read an integer from 0; 1.0 is one, too."""
    try:
        grade = float(text)
    except ValueError:
        grade = math.nan
    if not (math.isfinite(grade) and grade >= 0 and grade == int(grade)):
        raise InputError(
            f"{where}: the column {column!r} must hold a grade, a whole number from 0 (not relevant) up, got {text!r}"
        )
    return int(grade)
