"""Which mistake is it? A port's tensors beside the right ones, and the known mistake that reproduces the first wrong.

Up to the first wrong tensor everything that was given is right, so the inputs of the step are known, and each known
mistake (``mistakes``) can be made there: the one whose numbers are the port's, to rounding, is named. Then it is made
in one layer or in all, whichever explains more of the later tensors, and what still differs is the next mistake. Of one
wrong tensor pairs of mistakes are tried, too. What nothing reproduces is said to be so, with what is nearest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import threadpoolctl

from minisbert.model import Array
from minisbert.model.bert import equal_length_runs
from minisbert.model.folder import SentenceModel
from minisbert.proof.ledger import Reference, Row, bound_of, disagreement, first_disagreement, made_by
from minisbert.proof.mistakes import MISTAKES, Batch, Change, Recipe, blocks_of, forward
from minisbert.proof.port import Parts, Port, distance, kind_of, precision, understand

Tensors = dict[str, Parts]
Changes = tuple[Change, ...]
REPEATED = ("linear", "layer_norm", "residual", "weights", "stored", "round")  # in blocks of several kinds

OPERATIONS = {  # of each block
    "embeddings": "stored word position token_type add layer_norm round",
    "attention": "weights stored layers before linear split scores scale mask softmax gather join residual behind "
    "layer_norm round",
    "feed_forward": "weights stored layers before linear activation after residual behind layer_norm round",
    "modules": "layers token_embeddings pool normalize round",
}
MATRICES = {  # where a linear layer of a block may go wrong
    "attention": ".* .[qkv]* .query .key .value .projected",
    "feed_forward": ".* .expanded .projected",
}
BESIDE = (r"word|position", r"query|key|value|probs\.\d+")  # tensors of a block that are not made from each other
FAR = 10  # times nearer to a mistake's numbers than to the right ones, before the mistake is named, or called nearest
PAIRS = 45  # mistakes that are tried in pairs, the nearest ones; where whole layers lie between, LONG_PAIRS
LONG_PAIRS = 12
MOST = 4  # mistakes that are looked for, one after the other


@dataclass(frozen=True)
class Finding:
    """What is known about one wrong tensor."""

    tensor: str
    says: str  # the mistake; "" if nothing known is near
    where: str  # such as "in every layer"
    reproduces: bool
    difference: float  # max |port - mistake|
    from_right: float  # max |port - right|
    astray: bool = False  # whether what follows is right all the same

    def __str__(self) -> str:
        if self.astray:
            return self.says
        where = f" ({self.where})" if self.where and "every" not in self.says else ""
        if self.reproduces:
            return f"Your {self.tensor} is that of a port in which {self.says}{where}."
        if self.says:
            return (
                f"No known mistake reproduces your {self.tensor}. The nearest: {self.says}{where}; it is "
                f"{self.difference:.1e} from yours, and the right one {self.from_right:.1e}."
            )
        return f"No known mistake, and no pair of two, is near your {self.tensor}."


@dataclass(frozen=True)
class _Tried:
    """Changes made at one place, and how far from the port's tensor they lead."""

    changes: Changes
    form: str
    difference: float
    possible: bool = True  # whether the tensor is another than without them, and those before it agree
    fits: bool = True  # whether it is the port's tensor, to rounding


def by_name(batch: Batch, tensors: Mapping[str, Array], texts: Sequence[int], lengths: Sequence[int]) -> Tensors:
    """Padded tensors as parts of ``texts``, by the ledger's names: probs by runs of all texts' equal ``lengths``."""
    runs = [run for run, (_, count, _) in enumerate(equal_length_runs(np.array(lengths))) for _ in range(count)]
    found: Tensors = {}
    for name, tensor in tensors.items():
        for text, part in zip(texts, batch.by_text(name, tensor), strict=True):
            found.setdefault(f"{name}.{runs[text]}" if name.endswith(".probs") else name, {})[text] = part
    return found


def difference(mine: Parts, other: Parts | None) -> float:
    """``max |mine - other|``; infinite where shapes differ, one is missing, or a number is NaN."""
    worst = 0.0
    for text, part in mine.items():
        if other is None or text not in other or other[text].shape != part.shape:
            return np.inf
        with np.errstate(invalid="ignore", over="ignore"):
            far = float(np.abs(part.astype(np.float64) - other[text]).max(initial=0.0))
        worst = max(worst, np.inf if np.isnan(far) else far)
    return worst


class Judge:
    """Looks for the mistakes behind a port's tensors.

    ``model`` in the dtype in which mistakes are made, token ``ids`` of every text, ``bounds`` of what each tensor may
    differ by.
    """

    def __init__(self, model: SentenceModel, port: Port, ids: Parts, bounds: Mapping[str, float]) -> None:
        self.model, self.bounds = model, bounds
        self.mine = {name: parts for name, parts in port.tensors.items() if name != "token_ids"}
        self.lengths = [len(tokens) for tokens in ids.values()]
        given = {text for parts in port.tensors.values() for text in parts}
        texts = [text for text in (port.layout.order if port.layout else ()) if text in given]
        texts += sorted(given - set(texts))
        own = [ids[text] for text in texts]
        # how the port may have laid its texts: as its arrays show, or unknown: padded, each alone, or end to end
        self.forms: dict[str, list[tuple[Batch, list[int]]]] = {"padded": [(Batch.of(own), texts)]}
        if port.layout and port.layout.length:
            self.forms["padded"] = [(Batch.of(own, port.layout.length, left=port.layout.side == "left"), texts)]
        elif len(own) > 1:
            self.forms["alone"] = [(Batch.of([tokens]), [text]) for text, tokens in zip(texts, own, strict=True)]
            self.forms["strip"] = [(Batch.strip(own), texts)]
        short = min(texts, key=lambda text: len(ids[text]))
        self.forms["one"] = [(Batch.of([ids[short]]), [short])]
        self.blocks = blocks_of(model.config.num_hidden_layers)
        self.last = len(self.blocks) - 1
        self._known: dict[tuple[Any, ...], list[dict[str, Array]]] = {}

    # -------------------------------------------------------------------------------------------------- computing

    def block(self, name: str) -> int:
        """The block in which a tensor is made, counted from the embeddings."""
        if kind_of(name) == "vector":
            return self.last
        return next((b for b, block in enumerate(self.blocks) if name.startswith(f"{block}.")), 0)

    def compute(
        self, base: Changes, changes: Changes, form: str, until: int, since: int = 0, keep: bool = False
    ) -> Tensors:
        """The tensors of some blocks, with changes; what lies before is computed with those of the base, once.

        With ``keep`` all but the last block is remembered: what follows BERT is tried in many ways.
        """
        late = tuple(c for c in changes if c.mistake.is_late)
        if until == self.last and (late or keep):
            base, changes, since = (*(c for c in changes if c not in late), *base), late, self.last
        if since and (base, form) not in self._known:
            every = [forward(batch, self.model, Recipe(*base)) for batch, _ in self.forms[form]]
            self._known[base, form] = [{n: x for n, x in one.items() if n.endswith(".output")} for one in every]
        known = self._known[base, form] if since else [{}] * len(self.forms[form])
        found: Tensors = {}
        for (batch, texts), before in zip(self.forms[form], known, strict=True):
            tensors = forward(batch, self.model, Recipe(*changes, *base), before, since, until)
            for name, parts in by_name(batch, tensors, texts, self.lengths).items():
                found.setdefault(name, {}).update(parts)
        return found

    def far(self, name: str, found: Tensors) -> float:
        """How far a tensor of the port is from one of ours, in those texts that ours has."""
        texts = {text for parts in found.values() for text in parts}
        return difference({t: part for t, part in self.mine[name].items() if t in texts}, found.get(name))

    def close(self, name: str, found: Tensors, slack: float = 1.0) -> bool:
        """Whether a tensor of the port equals one of ours to rounding."""
        return self.far(name, found) <= slack * self.bounds[name]

    # -------------------------------------------------------------------------------------------------- searching

    def findings(self) -> list[Finding]:
        """The mistakes, in the order of computation."""
        base: Changes = ()
        form = "padded"
        with threadpoolctl.threadpool_limits(1), np.errstate(all="ignore"):
            right = self.compute((), (), form, self.last)
            found = self.misnamed(right)
            while len(found) < MOST:
                now, slack = self.compute(base, (), form, self.last), _slack(base)
                wrong = [name for name in self.mine if not self.close(name, now, slack)]
                # a wrong step may enlarge rounding, too: what is explained but for a hundredth is explained
                name = next((name for name in wrong if self.far(name, now) * 100 > self.far(name, right)), "")
                if not name:
                    break
                finding, changes, form = self.search(name, base, form, now)
                follower = self.follower(name)
                if follower and self.close(follower, now, slack):
                    made = self.compute(base, changes, form, self.block(follower))
                    if not changes or not self.close(follower, made, slack):
                        says = (
                            f"Your {name} is wrong, but {follower}, which is made from it, is right: "
                            "the port saves something else under this name, or the next step does not see it "
                            "(LayerNorm takes away what is added to a row, and its scale)."
                        )
                        found.append(replace(finding, says=says, reproduces=False, astray=True))
                        del self.mine[name]
                        continue
                if changes or not base or self.far(name, now) * FAR > self.far(name, right):
                    found.append(finding)
                if not changes:
                    break
                base = (*changes, *base)
        return found

    def follower(self, name: str) -> str:
        """The first given tensor that is computed from this one; "" if there is none."""
        beside = next((one for one in BESIDE if re.search(rf"\.({one})$", name)), "none")
        later = list(self.mine)[list(self.mine).index(name) + 1 :]
        alike = (n for n in later if self.block(n) != self.block(name) or not re.search(rf"\.({beside})$", n))
        return next(alike, "")

    def misnamed(self, right: Tensors) -> list[Finding]:
        """Wrong tensors that equal other right ones, where what follows them is right, or where all wrong ones do."""

        def holds(name: str) -> str:
            mine, bound = self.mine[name], self.bounds[name]
            return next((other for other in right if other != name and difference(mine, right[other]) <= bound), "")

        held = {name: holds(name) for name in self.mine if not self.close(name, right)}
        if len(held) < 2 or not all(held.values()):
            held = {n: h for n, h in held.items() if h and (after := self.follower(n)) and self.close(after, right)}
        for name in held:
            del self.mine[name]
        some = ", ".join(f"{name} holds {other}" for name, other in list(held.items())[:3])
        many = f" ({len(held)} tensors in all)" if len(held) > 3 else ""
        says = f"Right numbers under a wrong name: your {some}{many}."
        return [Finding(name, says, "", True, 0.0, np.inf, True) for name in list(held)[:1]]

    def search(self, name: str, base: Changes, form: str, now: Tensors) -> tuple[Finding, Changes, str]:
        """The mistake that makes a tensor what it is, given that those before agree."""
        names = list(self.mine)
        before = names[: names.index(name)]
        until, since, from_right = self.block(name), 0, self.far(name, now)
        if before:
            since = min(until, self.block(before[-1]) + before[-1].endswith(".output"))
        outputs = [other for other in before if other.endswith(".output")]
        before = [other for other in before if self.block(other) >= since]
        long = until - since > 2
        bound = min(_slack(base) * self.bounds[name], from_right / FAR)
        tried: list[_Tried] = []

        def attempt(changes: Changes, form: str, quick: bool = False) -> None:
            found = self.compute(base, changes, "one" if quick else form, until, since, long and not before)
            possible = difference(found.get(name, {}), now.get(name)) > 0
            # a layer that is given, and right, is not missing
            there = [*before, *outputs] if any(c.mistake.op == "layers" for c in changes) else before
            possible = possible and all(self.close(other, found, 10.0) for other in there)
            far = self.far(name, found)
            if quick and possible and far <= bound:
                attempt(changes, form)  # of one text it is right: of all?
            else:
                tried.append(_Tried(changes, form, far, possible, possible and far <= bound))

        def singles(since: int) -> None:
            for change in self.singles(since, until):
                if long and since == self.last and not change.mistake.is_late:
                    continue
                # how texts may be laid where it matters to a mistake
                forms = ["padded", "alone", "strip"] if change.mistake.together else ["padded"]
                for one in [one for one in forms if one in self.forms] if not base else [form]:
                    attempt((change,), one, long and (not change.mistake.together or one == "alone"))

        def pairs(those: Iterable[tuple[_Tried, _Tried]]) -> None:
            for a, b in those:
                if {(c.mistake.op, c.at) for c in a.changes}.isdisjoint((c.mistake.op, c.at) for c in b.changes):
                    both = (*a.changes, *b.changes)
                    forms = {one.form for one in (a, b) if any(c.mistake.together for c in one.changes)} or {form}
                    together = any(c.mistake.together for c in both)
                    quick = long and (forms == {"alone"} or (forms == {form} and not together))
                    attempt(both, forms.pop(), quick)

        def nearest() -> list[_Tried]:
            return sorted((one for one in tried if one.possible), key=lambda one: one.difference)

        def stages() -> Iterator[None]:
            """From what is cheap to try, and likely, to what is not."""
            late: list[_Tried] = []
            if long and until == self.last:
                singles(self.last)
                yield
                late = nearest()
                pairs(combinations(late[:PAIRS], 2))
                late = late[:LONG_PAIRS]
                yield
            singles(since)
            yield
            pairs(combinations(nearest()[: LONG_PAIRS if long else PAIRS], 2))
            yield
            pairs((one, other) for one in nearest() if len(one.changes) == 1 and one not in late for other in late)
            yield

        for stage, _ in enumerate(stages()):
            if matching := [one for one in tried if one.fits]:
                best, where = self.widest(matching, name, base)
                return self.finding(name, best, where, from_right), best.changes, best.form
            if not stage and not base and from_right < 30 * self.bounds[name] and (small := self.small(name)):
                return self.finding(name, small, "", from_right), small.changes, small.form
        near = [one for one in nearest() if one.difference * FAR <= from_right]
        if near:  # one mistake rather than two
            best = min(near, key=lambda one: (len(one.changes), one.difference))
            return self.finding(name, best, "", from_right), (), form
        return Finding(name, "", "", False, np.inf, from_right), (), form

    def finding(self, name: str, one: _Tried, where: str, from_right: float) -> Finding:
        """The mistakes in words."""
        c = self.model.config
        sizes = {"K": c.head_size, "D": c.hidden_size, "H": c.num_attention_heads, "eps": c.layer_norm_eps}
        order = sorted(one.changes, key=lambda change: MISTAKES.index(change.mistake))
        says = ", and ".join(change.mistake.says.format(**sizes) + _sites(change) for change in order)
        return Finding(name, says, where, one.fits, one.difference, from_right)

    def small(self, name: str) -> _Tried | None:
        """A mistake that is less than rounding where it is made, and shows further on: it explains everything."""
        fitting = []
        for mistake in MISTAKES:
            if mistake.op not in ("layer_norm", "activation", "weights", "stored", "round"):
                continue
            for at in ("*", "embeddings*", "layers.*.attention*", "layers.*.feed_forward*"):
                changes = (Change(mistake, at),)
                near = self.far(name, self.compute((), changes, "padded", self.block(name)))
                if near <= self.bounds[name]:
                    found = self.compute((), changes, "padded", self.last)
                    if all(self.close(other, found) for other in self.mine):
                        fitting.append(_Tried(changes, "padded", near))
        return min(fitting, key=lambda one: one.difference, default=None)

    def singles(self, since: int, until: int) -> Iterator[Change]:
        """Every mistake that can be made in some blocks, at every place that makes a difference within them."""
        blocks = self.blocks[since : until + 1]
        kinds = list(dict.fromkeys(block.split(".")[-1] for block in blocks))
        for mistake in MISTAKES:
            fitting = [kind for kind in kinds if set(OPERATIONS[kind].split()) & set(mistake.changes)]
            if mistake.op == "layers" or len(fitting) > 1:
                yield Change(mistake)
            # one mistake is made once
            everywhere = mistake.op in ("weights", "stored", "round") or "eps" in mistake.says
            if mistake.op == "layers" or (len(blocks) > 2 and len(fitting) > 1 and everywhere):
                continue
            for kind in fitting:
                place = blocks[0] if len(blocks) == 1 else kind if kind in blocks else f"layers.*.{kind}"
                parts = MATRICES[kind].split() if mistake.op == "linear" else [""]
                for part in parts if len(blocks) < 3 else parts[:1]:
                    yield Change(mistake, f"{place}{part}")

    def widest(self, matching: list[_Tried], name: str, base: Changes) -> tuple[_Tried, str]:
        """Of the mistakes that reproduce a tensor the one, in one layer or in all, that explains most of the rest."""
        rest = list(self.mine)[list(self.mine).index(name) :]
        options: list[tuple[tuple[int, int], _Tried, str]] = []
        for one in matching[:24]:
            for scope, changes in _scopes(one.changes):
                found, slack = self.compute(base, changes, one.form, self.block(rest[-1])), _slack((*changes, *base))
                reach = next((i for i, n in enumerate(rest) if not self.close(n, found, slack)), len(rest))
                options.append(((reach, -len(changes)), replace(one, changes=changes), scope))
        furthest, first, _ = max(options, key=lambda option: option[0])
        if not furthest[0]:
            return matching[0], ""
        made = [c.mistake for c in first.changes]
        same = [o for o in options if o[0] == furthest and [c.mistake for c in o[1].changes] == made]
        # where one layer alone explains as much as all, nothing tells them apart
        return same[-1][1], "" if "alone" in same[0][2] and len(same) > 1 else same[0][2]


def _slack(base: Sequence[Change]) -> float:
    """How much more than rounding is allowed behind a mistake, which may enlarge what rounding did before it."""
    words = " ".join(change.mistake.says for change in base)
    return 4000.0 if "bfloat16" in words else 500.0 if "float16" in words else 10.0 if base else 1.0


def _sites(change: Change) -> str:
    """For which matrices."""
    part = change.at.rpartition(".")[2]
    if change.mistake.op != "linear" or part == "*":
        return ""
    several = {"[qkv]*": "query, key and value", "projected": "the projection", "expanded": "the first of feed-forward"}
    return f", for {several.get(part, part)}"


def _scopes(changes: Changes) -> Iterator[tuple[str, Changes]]:
    """The same in this layer alone, in every layer, and wherever it can be."""
    layer = next((c.at.split(".")[1] for c in changes if c.at.startswith("layers.")), "")
    if layer.isdigit():
        yield f"in layer {layer} alone", changes
        yield "in every layer", tuple(replace(c, at=c.at.replace(f"layers.{layer}.", "layers.*.")) for c in changes)
    else:
        yield "", changes
    if any(c.at != "*" and c.mistake.op in REPEATED for c in changes):
        yield "wherever it is done", tuple(replace(c, at="*") for c in changes)


# ----------------------------------------------------------------------------------------------------- the whole answer


@dataclass(frozen=True)
class Verdict:
    """What ``minisbert verify --mine`` says about a port."""

    agrees: bool
    rows: list[Row]
    tensors: int  # that were given and compared
    of: int  # that there are
    numbers: float  # share of the numbers of these tensors that were compared
    unknown: dict[str, str]  # names that are none, and the nearest that is
    notes: list[str]
    findings: list[Finding]
    facts: list[str]  # about the first wrong tensor
    advice: str  # what to give next

    @property
    def first(self) -> Row | None:
        """The first row that differs."""
        return first_disagreement(self.rows)

    def sentences(self) -> list[str]:
        """The verdict in words."""
        count = len(self.rows)
        names = "--template lists all names; --name says which one an .npy is"
        said = [] if self.rows else [f"Nothing is compared: no name in it is known; {names}."]
        if self.first is not None:
            said = [disagreement(self.rows) if count > 1 else f"The one tensor, {self.first.name}, disagrees."]
        elif self.findings:
            said = ["With the right tensors for such token ids all the others agree."]
        elif self.rows:
            part = "" if self.numbers == 1 else f", in {100 * self.numbers:.3g} % of their numbers: more was not given"
            agree = f"All {count} tensors agree" if count > 1 else f"The one tensor, {self.rows[0].name}, agrees"
            said = [f"{agree}{part}."]
        found = [*map(str, self.findings)]
        said = [*found, *said] if self.first is None else [*said, *found]
        return [sentence for sentence in (*said, *self.facts, self.advice) if sentence]


def examine(given: Mapping[str, Any], model: SentenceModel, reference: Reference, dtype: str) -> Verdict:
    """Compare somebody's tensors with the right ones, and find out which mistakes they show.

    Parameters
    ----------
    given : dict of str to Array
        By this package's names or Hugging Face's, packed or padded, of some or all of the texts.
    model : SentenceModel
        In which mistakes are made, in float32 or float64.
    reference : Reference
        Whole: with every column.
    dtype : {"float32", "float64"}
        In which the port computes; it sets the bounds.

    Returns
    -------
    Verdict

    Examples
    --------
    >>> from minisbert import SentenceEncoder
    >>> from minisbert.proof.ledger import read_recorded, trace_tensors, whole
    >>> encoder, recorded = SentenceEncoder(dtype="float64"), read_recorded()
    >>> right = whole(recorded, encoder.trace(recorded.texts))
    >>> mine = {"sentence_embedding": right.tensors["modules.0"].astype("float32")}
    >>> print(examine(mine, encoder.model, right, "float32").findings[0])
    Your sentence_embedding is that of a port in which the sentence vector is not normalised.
    """
    lengths = model.tokenizer(reference.texts, model.max_seq_length).lengths.tolist()
    wanted = as_parts(reference.tensors, lengths)
    port = understand(given, wanted, model.config.num_hidden_layers)
    findings: list[Finding] = []
    no_fit = any(kind_of(name) in ("ids", "rows") for name in port.misshapen)
    if no_fit or not _begins_right(port, wanted, dtype):
        with threadpoolctl.threadpool_limits(1):  # small products: a second thread would mostly wait
            other = _other_tokens(given, reference.texts, model, wanted, dtype, port)
        if other is not None:
            says, wanted, port = other
            name = next(iter(port.tensors))
            findings.append(Finding(name, says, "", True, difference(port.tensors[name], wanted[name]), np.inf))
    bounds = {name: _bound(port, name, parts, dtype) for name, parts in wanted.items()}
    rows = [
        Row(name, port.arrays[name].shape, difference(parts, wanted[name]), bounds[name])
        for name, parts in port.tensors.items()
    ]
    wrong = next((row for row in rows if not row.agrees), None)
    notes, shapes = [*port.notes], []
    for name, (shape, expected) in port.misshapen.items():
        rows.append(Row(name, shape, np.inf, bounds.get(name, bounds.get(f"{name}.0", 0.0))))
        turned = " (is it transposed?)" if name in wanted and shape == reference.tensors[name].shape[::-1] else ""
        shapes.append(f"{name} has shape {shape}{turned}, expected {expected}")
    notes += shapes[:3]
    if len(shapes) > 3:
        notes.append(f"{len(shapes) - 3} more tensors have another shape than is expected")
    if not rows and not port.unknown:
        raise ValueError("there is no tensor to compare in it; `verify --template mine.npz` writes an example")
    if port.layout and (port.layout.length or port.layout.order != tuple(range(len(lengths)))):
        notes.append(f"read as: {port.layout}" + " (padding is ignored)" * bool(port.layout.length))
    facts, advice = [], ""
    if wrong is not None:
        mine = port.tensors[wrong.name]
        numbers = np.concatenate([part.reshape(-1) for part in mine.values()])
        finite = bool(np.isfinite(numbers).all())
        floats = [row for row in rows if row.name != "token_ids"]
        other_texts = wrong.name == "token_ids" and bool(floats) and not floats[0].agrees
        if finite and len(set(numbers)) > 1 and not other_texts:
            findings += Judge(model, port, wanted["token_ids"], bounds).findings()
        if not findings or not findings[-1].reproduces:
            advice = _advice(wrong.name, list(port.tensors), list(wanted)) if finite else ""
            if not advice and not any(finding.astray for finding in findings):
                advice = f"Compare your code for this step with ours: minisbert/{made_by(wrong.name)}"
        if advice or not finite or not findings[-1].reproduces:
            facts = facts_about(mine, wanted[wrong.name], wrong.bound, kind_of(wrong.name))
    compared = sum(part.size for parts in port.tensors.values() for part in parts.values())
    there = sum(part.size for name in port.tensors for part in wanted[name].values())
    agrees = not port.unknown and not findings and all(row.agrees for row in rows)
    counted = len(port.tensors), len(wanted), compared / max(there, 1)
    return Verdict(agrees, rows, *counted, port.unknown, notes, findings, facts, advice)


def as_parts(tensors: Mapping[str, Array], lengths: Sequence[int]) -> Tensors:
    """The strip's tensors text by text; of a layer's probs the runs hold one text after the other."""
    found: Tensors = {}
    ends = np.cumsum(lengths)[:-1]
    for name, tensor in tensors.items():
        kind = kind_of(name)
        same = [found[n] for n in found if kind == "probs" and n.startswith(f"{name.rpartition('.')[0]}.")]
        whole = kind in ("vector", "probs")
        found[name] = dict(enumerate(tensor if whole else np.split(tensor, ends), sum(map(len, same))))
    return found


def _bound(port: Port, name: str, parts: Parts, dtype: str) -> float:
    """The ledger's bound; of half precision what it rounds to."""
    values = np.concatenate([part.reshape(-1) for part in parts.values()])
    bound, given = bound_of(name, values, dtype), port.arrays.get(name)
    if given is None or name == "token_ids":
        return bound
    single = bound_of(name, values, "float32") if given.dtype == np.float32 else 0.0
    return max(bound, precision(given) * float(np.abs(values).max()) or single)


def _begins_right(port: Port, wanted: Tensors, dtype: str) -> bool:
    """Whether the first tensor agrees."""
    return all(
        difference(parts, wanted[name]) <= _bound(port, name, wanted[name], dtype)
        for name, parts in list(port.tensors.items())[:1]
    )


ORDERS = {  # of a text's token ids, and what a port does that has it
    "[CLS] and [SEP] are missing": "ids",
    "[CLS] is missing": "ids last",
    "[SEP] is missing": "first ids",
    "[SEP] stands twice at the end of each text": "first ids last last",
    "[CLS] stands twice at the beginning of each text": "first first ids last",
    "[CLS] and [SEP] are exchanged": "last ids first",
    "the ids between [CLS] and [SEP] are reversed": "first reversed last",
}


def tokenisations(texts: Sequence[str], model: SentenceModel) -> Iterator[tuple[str, list[Array]]]:
    """Token ids as other ports make them, and what those do."""
    tokenizer, limit, library = model.tokenizer, model.max_seq_length, model.tokenizer.library
    first, last = tokenizer.first, tokenizer.last
    right = [ids[len(first) : len(ids) - len(last)] for ids in tokenizer(texts, limit).split()]
    for says, order in ORDERS.items():
        parts = [{"first": first, "ids": ids, "reversed": ids[::-1], "last": last} for ids in right]
        yield says, [np.concatenate([one[part] for part in order.split()]).astype(int) for one in parts]

    def cased(text: str) -> list[int]:
        before = library.pre_tokenizer
        pieces = [piece for piece, _ in before.pre_tokenize_str(text)] if before else text.split()
        return [token.id for piece in pieces for token in library.model.tokenize(piece)]

    def words(text: str) -> list[int]:
        normal = library.normalizer.normalize_str(text) if library.normalizer else text
        return [library.token_to_id(word) or library.token_to_id("[UNK]") or 0 for word in normal.split()]

    pieces: dict[str, Callable[[str], list[int]]] = {
        "texts are not lower-cased": cased,
        "texts are lower-cased": lambda text: library.encode(text.lower(), add_special_tokens=False).ids,
        "words are not split into pieces: a word without a piece of its own is [UNK]": words,
    }
    for says, ids_of in pieces.items():
        yield says, [np.array([*first, *ids_of(t)[: limit - len(first) - len(last)], *last]) for t in texts]


def _other_tokens(
    given: Mapping[str, Any], texts: Sequence[str], model: SentenceModel, wanted: Tensors, dtype: str, port: Port
) -> tuple[str, Tensors, Port] | None:
    """The tokenisation under which the first tensors agree, or under which alone the shapes fit."""
    fitting = []
    right = [list(ids) for ids in wanted["token_ids"].values()]
    for says, ids in tokenisations(texts, model):
        lengths = [len(one) for one in ids]
        if [list(one) for one in ids] == right or not all(lengths):
            continue
        batch = Batch.of(ids)
        with np.errstate(all="ignore"):
            tensors = forward(batch, model)
        other = {"token_ids": dict(enumerate(ids)), **by_name(batch, tensors, range(len(ids)), lengths)}
        found = understand(given, other, model.config.num_hidden_layers)
        # with fewer texts in the same rows almost anything begins right
        fewer = port.layout and found.layout and len(found.layout.order) < len(port.layout.order)
        if not found.tensors or fewer or len(found.misshapen) > len(port.misshapen):
            continue
        if _begins_right(found, other, dtype):
            return says, other, found
        first = next(iter(found.tensors))
        near = first != "token_ids" and distance(found.tensors[first], other[first]) < 0.5
        if near and len(found.misshapen) < len(port.misshapen):
            fitting.append((says, other, found))
    return fitting[0] if fitting else None


def facts_about(mine: Parts, right: Parts, bound: float, kind: str) -> list[str]:
    """What can be seen of a wrong tensor without knowing why: where it is wrong, and how it relates to the right."""
    ours, theirs = (np.concatenate([parts[t].reshape(-1) for t in mine]) for parts in (right, mine))
    facts = []
    if kind == "ids":
        text, at = next((t, np.flatnonzero(mine[t] != right[t])[0]) for t in mine if (mine[t] != right[t]).any())
        facts.append(f"The first other id: text {text}, token {at}: {mine[text][at]:g}, expected {right[text][at]}.")
    if bad := int((~np.isfinite(theirs)).sum()):
        text, at = next((t, tuple(at)) for t in mine for at in np.argwhere(~np.isfinite(mine[t])).tolist())
        return [f"{bad:,} of {theirs.size:,} numbers are NaN or infinite; the first: text {text}, {at}."]
    if theirs.size > 1 and not np.ptp(theirs):
        return [f"All its numbers are {theirs[0] + 0.0:g}."]
    wrong = {t: w for t in mine if (w := np.abs(mine[t] - right[t]) > bound).any()}
    if len(wrong) < len(mine):
        facts.append(f"Only text{'s' * (len(wrong) > 1)} {', '.join(map(str, wrong))} (counted from 0) differ.")
    axes = {"ids": ["token"], "vector": ["dimension"], "probs": ["head", "token"], "rows": ["token", "column"]}[kind]
    for axis, what in enumerate(axes):
        lines = {t: np.unique(np.argwhere(w)[:, axis]) for t, w in wrong.items()}
        if all(4 * len(line) <= (size := wrong[t].shape[axis]) or len(line) == 1 < size for t, line in lines.items()):
            said = "; ".join(f"text {t}: {_some(line)}" for t, line in lines.items())
            facts.append(f"Only some {what}s differ (counted from 0): {said}.")
    if kind == "probs" and (said := _temperature(mine, right, bound)):
        return [said]
    scale = float(theirs @ ours / max(ours @ ours, 1e-300))
    if scale and np.abs(theirs - scale * ours).max() <= bound * max(1.0, abs(scale)) and kind != "ids":
        facts.append(f"It is {scale:.6g} times the right one.")
    elif theirs.size > 1 and np.allclose(np.sort(theirs), np.sort(ours), rtol=0, atol=bound):
        facts.append("It has the right numbers in another order.")
    elif kind == "rows":
        rows = np.concatenate([mine[t] - right[t] for t in mine])
        if len(rows) > 1 and np.ptp(rows, axis=0).max() <= 0.05 * np.abs(rows).max():
            facts.append("All tokens are off by the same vector, as when a bias or an embedding is missing or wrong.")
    zeros = float(np.mean((theirs == 0) & (ours != 0)))
    kept = (theirs != 0) & (np.abs(ours) > 100 * bound)
    if zeros > 0.02 and kept.any():
        ratios = theirs[kept] / ours[kept]
        grown = float(np.median(ratios))
        said = f"{100 * zeros:.0f} % of its numbers are 0 where the right ones are not."
        if np.abs(ratios - grown).max() < 1e-2 and grown > 1.01:
            said = (
                f"{100 * zeros:.0f} % of its numbers are 0 and the others {grown:.4g} times the right ones: dropout of "
                f"rate {1 - 1 / grown:.2g} is on; switch it off (eval mode)."
            )
        facts.append(said)
    return facts


def _temperature(mine: Parts, right: Parts, bound: float) -> str:
    """Probabilities of the same scores times a factor: logarithms that are proportional, but for a row's own number."""
    with np.errstate(all="ignore"):
        ours, theirs = ([np.log(parts[t].astype(float)) for t in mine] for parts in (right, mine))
        ours, theirs = ([x - x.mean(-1, keepdims=True) for x in rows] for rows in (ours, theirs))
        a, b = (np.concatenate([x.reshape(-1) for x in rows]) for rows in (ours, theirs))
        factor = float(a @ b / (a @ a))
        powers = {t: right[t].astype(float) ** factor for t in mine}
        off = [np.abs(mine[t] - p / p.sum(-1, keepdims=True)).max() for t, p in powers.items()]
    return f"They are softmax of {factor:.5g} times the right scores." if max(off) <= bound else ""


def _some(numbers: Array) -> str:
    few = ", ".join(map(str, numbers[:6]))
    return few if len(numbers) <= 6 else f"{few}, ... ({len(numbers)} in all)"


def _advice(first: str, given: list[str], known: list[str]) -> str:
    """Which tensors between the last that agrees and the first that does not would narrow it down."""
    before = given[: given.index(first)]
    start = known.index(before[-1]) + 1 if before else 0
    between = known[start : known.index(first)]
    if not between:
        return ""
    outputs = [name for name in between if name.endswith(".output")]
    add = outputs[len(outputs) // 2 :: max(1, len(outputs))] if len(outputs) > 1 else between[-3:]
    since = f"between {before[-1]}, which agrees, and {first}" if before else f"before {first}"
    were = f"{len(between)} tensors {since} were" if len(between) > 1 else f"The tensor {since} was"
    return f"{were} not given; the mistake may be in any step up to there. Add {', '.join(add)} to narrow it down."
