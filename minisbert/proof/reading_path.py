"""README's reading path, measured: ``python -m minisbert.proof.reading_path [README.md] [--check]``.

Which file to read next, what it computes, how long it is, where the idea stands in a paper, what it is called in
PyTorch, and how far our numbers are from PyTorch's, measured now against the recorded tensors. With a file, the table
between its two markers is rewritten, or with ``--check`` compared: words and line counts must be equal, and a measured
difference may move by a factor of four, because other processors round otherwise.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from minisbert.encoder import SentenceEncoder
from minisbert.proof.ledger import Row, compare, read_recorded, trace_tensors

PACKAGE = Path(__file__).parent.parent
BEGIN, END = "<!-- reading path: begin -->", "<!-- reading path: end -->"
# Rounding differs between processors; a change of the code moves the figures much further.
_LEEWAY = 4.0


@dataclass(frozen=True)
class Stop:
    """One file of the reading path."""

    file: str
    computes: str
    paper: str
    pytorch: str
    measured: str  # pattern of the ledger's rows that this file is answerable for, or a word


PATH = (
    Stop("model/config.py", "what the checkpoint says it is", "BERT §3", "`transformers.BertConfig`", "nothing"),
    Stop("model/checkpoint.py", "bytes on disk → arrays by name", "safetensors", "`safetensors.safe_open`", "equal"),
    Stop("model/params.py", "the weights, one named field each", "BERT §3", "`BertModel.state_dict()`", "equal"),
    Stop("model/gradients.py", "a gradient for every weight", "", "`Tensor.grad`", "nothing"),
    Stop("model/tokens.py", "text → packed token ids, what was cut, where each stands", "BERT §3", "", "equal"),
    Stop("model/tokenizer_json.py", "the tokenizer of a folder, and its limit", "", "`AutoTokenizer`", "nothing"),
    Stop("model/wordpiece.py", "the same ids by hand", "Wu et al. 2016 §4.1", "`BertTokenizer`", "equal"),
    Stop(
        "model/ops.py",
        "linear, GELU, softmax, LayerNorm, normalise",
        "Attention eq. 1, LayerNorm eq. 4, GELU §2",
        "`torch.nn.functional`",
        r"activated|probs",
    ),
    Stop(
        "model/bert.py",
        "embed → L × (attention → feed-forward)",
        "BERT §3, Attention §3",
        "`BertModel`",
        r"^embeddings|^layers",
    ),
    Stop("model/pooling.py", "token vectors → one vector, six ways", "SBERT §3", "`Pooling`", r"^modules\.0$"),
    Stop("model/modules.py", "pooling, dense, normalise, in order", "SBERT §3", "`Dense`, `Normalize`", r"^sentence"),
    Stop("model/modules_json.py", "the same, read from disk and described for it", "", "`modules.json`", "nothing"),
    Stop("model/folder.py", "a model folder, read and written as one", "", "`SentenceTransformer.save`", "nothing"),
    Stop("similarity.py", "cosine, dot, distances, the angular metric", "SBERT §3", "`util.cos_sim` …", "nothing"),
    Stop("distances.py", "similarity ↔ distance, and which is a metric", "Euclid XI.20", "`torch.acos` …", "nothing"),
    Stop("trace.py", "every tensor by its name", "", "forward hooks", "nothing"),
    Stop("chunking.py", "long text → chunks that fit", "", "", "nothing"),
    Stop("composition.py", "the chunks' vectors → one", "Günther et al. 2024 §3", "", "nothing"),
    Stop("sources.py", "asking the Hub; how a failure is told", "", "`huggingface_hub`", "nothing"),
    Stop("pinned.py", "the default model, held against its hashes", "", "", "nothing"),
    Stop("hub.py", "model name → verified local folder", "", "`snapshot_download`", "nothing"),
    Stop("blas.py", "which kernel multiplies, on how many threads", "", "`torch.set_num_threads`", "nothing"),
    Stop("schedule.py", "which texts share a batch, which thread takes it", "SBERT §7", "", "nothing"),
    Stop("options.py", "what `encode` may be asked for, checked", "", "", "nothing"),
    Stop("pipeline.py", "texts → tokens → batches → vectors", "", "", "nothing"),
    Stop("encoder.py", "text in, vectors out", "SBERT §3", "`SentenceTransformer.encode`", r"^sentence"),
    Stop("remote.py", "asking a server; where the key goes", "", "`openai.OpenAI`", "nothing"),
    Stop("client.py", "`Client(key).embed(phrases)`", "", "", "nothing"),
    Stop("search/scoring.py", "a score, estimated and exact", "", "`util.cos_sim` …", "nothing"),
    Stop("search/exact.py", "the k best of many documents", "SBERT §1", "`util.semantic_search`", "nothing"),
    Stop("search/mining.py", "the closest pairs of one list", "", "`util.paraphrase_mining`", "nothing"),
    Stop("search/communities.py", "groups of close texts", "", "`util.community_detection`", "nothing"),
    Stop("search/matching.py", "two lists, one to one", "Crouse 2016", "`linear_sum_assignment`", "nothing"),
    Stop("training/losses.py", "seven losses and their gradients", "SBERT §3, CPC, SimCSE §3", "`losses`", "nothing"),
    Stop("training/step.py", "a batch → loss → every gradient", "Gao et al. 2021 §3", "`loss.backward()`", "nothing"),
    Stop("training/gradcheck.py", "is that gradient right?", "", "`torch.autograd.gradcheck`", "nothing"),
    Stop("training/optim.py", "a step against the gradient", "AdamW alg. 2", "`torch.optim.AdamW`", "nothing"),
    Stop("training/data.py", "a file → examples", "", "`datasets`", "nothing"),
    Stop(
        "training/batches.py", "examples → batches without false negatives", "", "`NoDuplicatesBatchSampler`", "nothing"
    ),
    Stop("training/settings.py", "what training may be asked for, checked", "", "`TrainingArguments`", "nothing"),
    Stop("training/objective.py", "a loss's name → the loss of a batch", "", "", "nothing"),
    Stop("training/checkpoint.py", "where a run stands, in one file", "", "", "nothing"),
    Stop("training/dev.py", "how good is the model now?", "", "`EmbeddingSimilarityEvaluator` …", "nothing"),
    Stop(
        "training/finetune.py",
        "batch after batch, the best kept",
        "SBERT §3.1",
        "`SentenceTransformerTrainer`",
        "nothing",
    ),
    Stop("training/scratch.py", "a small BERT with random weights", "BERT", "`BertModel(config)`", "nothing"),
    Stop("training/geometry.py", "alignment and uniformity", "Wang & Isola 2020 §4", "", "nothing"),
    Stop("training/plane.py", "InfoNCE on points of a plane, step by step", "", "", "nothing"),
)


def measured(stop: Stop, rows: list[Row]) -> str:
    """Write the largest difference of the tensors that a file makes.

    Parameters
    ----------
    stop : Stop
    rows : list of Row
        The ledger.

    Returns
    -------
    str

    Examples
    --------
    >>> encoder = next(stop for stop in PATH if stop.file == "encoder.py")
    >>> measured(encoder, [Row("sentence_embedding", (3, 384), 1.04e-7, 1e-6)])
    '1.0e-07'
    """
    if stop.measured in ("nothing", "equal"):
        return {"nothing": "", "equal": "equal"}[stop.measured]
    return f"{max(row.difference for row in rows if re.search(stop.measured, row.name)):.1e}"


def count_lines(source: str) -> tuple[int, int]:
    r"""Count the lines of code, without comments, docstrings and blank lines, and all lines.

    Parameters
    ----------
    source : str
        A Python file.

    Returns
    -------
    code, total : int

    Examples
    --------
    >>> count_lines("x = 1  # one\n\n# a comment\ndef f():\n    'a docstring'\n    return x\n")
    (3, 6)
    """
    lines = source.splitlines()
    code = {number for number, line in enumerate(lines, 1) if line.strip() and not line.strip().startswith("#")}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a string that nobody uses
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(code), len(lines)


def make_table() -> str:
    """Measure, count lines and write the table in Markdown.

    Returns
    -------
    str

    Examples
    --------
    >>> make_table().splitlines()[2][:30]
    '| 1 | [`model/config.py`](mini'
    """
    reference = read_recorded()
    rows = compare(trace_tensors(SentenceEncoder().trace(reference.texts)), reference, "float32")
    lines = [
        "| | file | what it computes | lines of code / of all | paper | PyTorch | max \\|difference\\| |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, stop in enumerate(PATH, 1):
        code, total = count_lines((PACKAGE / stop.file).read_text(encoding="utf-8"))
        lines.append(
            f"| {number} | [`{stop.file}`](minisbert/{stop.file}) | {stop.computes} | {code} / {total} | "
            f"{stop.paper} | {stop.pytorch} | {measured(stop, rows)} |"
        )
    return "\n".join(lines)


def same_table(old: str, new: str) -> bool:
    """Compare two tables: words and counts exactly, measured differences within a factor of four.

    Parameters
    ----------
    old, new : str

    Returns
    -------
    bool

    Examples
    --------
    >>> same_table("| a | 1.0e-07 |", "| a | 2.0e-07 |"), same_table("| a | 1.0e-07 |", "| a | 9.0e-07 |")
    (True, False)
    """
    figure = re.compile(r"\d\.\de-\d\d")
    if figure.sub("figure", old) != figure.sub("figure", new):
        return False
    pairs = zip(figure.findall(old), figure.findall(new), strict=True)
    return all(1 / _LEEWAY <= float(a) / float(b) <= _LEEWAY for a, b in pairs)


@click.command()
@click.argument("readme", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the table in README is stale.")
def main(readme: Path | None, check: bool) -> None:
    """Print the reading path as a table, or put it into README between its markers."""
    table = make_table()
    if readme is None:
        click.echo(table)
        return
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise click.ClickException(f"{readme}: expected the markers {BEGIN} and {END}")
    if check:
        fresh = same_table(old.strip(), table)
        click.echo("the reading path is up to date" if fresh else "the reading path is stale: run this without --check")
        sys.exit(0 if fresh else 1)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
