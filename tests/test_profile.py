"""The profile: FLOP and bytes by hand, the same vectors under the clock, each second charged to who took it."""

import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from running import refused, run, told
from tiny import TINY, tiny_dense, write_model

from minisbert import SentenceEncoder, parallel
from minisbert.model import bert as bert_module
from minisbert.model import pooling as pooling_module
from minisbert.model.pooling import Normalize, Pooling
from minisbert.model.tokens import Tokenizer
from minisbert.parallel import make_batches
from minisbert.proof.profile import (
    OPERATIONS,
    Ceilings,
    Cost,
    clocked,
    count_costs,
    one_pass,
    profile,
)

profile_module = sys.modules["minisbert.proof.profile"]  # the room has a function of this name
TEXTS = ["the cat sat on the mat", "i love soup", "", "the dog ran", "soup soup soup"]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    """The ceilings are measured for real, but not for long."""
    monkeypatch.setattr(profile_module, "_TIMES", 5)
    monkeypatch.setattr(profile_module, "_COPIED_BYTES", 2**20)
    monkeypatch.setattr(profile_module, "_PATIENCE", 0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    modules = (Pooling(("mean", "max")), tiny_dense(24, 8), Normalize())
    return write_model(tmp_path_factory.mktemp("profile") / "tiny-model", modules=modules)


@pytest.fixture(scope="module")
def encoder(model):
    return SentenceEncoder(model)


# -------------------------------------------------------------------------------------------- FLOP and bytes


def test_every_count_by_hand():
    # D 12, L 2, H 3, K 4, F 20; N 7 + 7 + 5 = 19, N D 228, N F 380, scores 3 (49 + 49 + 25) = 369, 4 bytes each
    layer_norm, matrix = (7 * 228, 228 + 12 + 12 + 228), (2 * 19 * 12 * 12, 228 + 144 + 12 + 228)
    by_hand = {  # FLOP and numbers, how many times over
        ("tokenize", "tokenize"): (0, 0, 1),
        ("embed", "look up, add"): (2 * 228, 2 * 19 + 228 + 228 + 12 + 228, 1),  # an id is as long as two numbers
        ("embed", "LayerNorm"): (*layer_norm, 1),
        ("attention", "Q, K, V"): (*matrix, 2 * 3),
        # Q K^T, probs V; split heads and scale, join heads, add residual
        ("attention", "products"): (
            2 * 2 * 369 * 4 + 228 + 0 + 228,
            2 * (228 + 228 + 369) + 2 * (228 + 228) + 228 + 228 + 228,
            2,
        ),
        ("attention", "softmax"): (5 * 369, 369 + 369, 2),
        ("attention", "project"): (*matrix, 2),
        ("attention", "LayerNorm"): (*layer_norm, 2),
        ("feed-forward", "expand"): (2 * 19 * 12 * 20, 228 + 240 + 20 + 380, 2),
        ("feed-forward", "activation"): (17 * 380, 380 + 380, 2),
        ("feed-forward", "contract"): (2 * 19 * 20 * 12, 380 + 240 + 12 + 228, 2),
        ("feed-forward", "add residual"): (228, 228 + 228 + 228, 2),
        ("feed-forward", "LayerNorm"): (*layer_norm, 2),
        ("modules", "pooling"): (228, 228 + 36, 2),  # mean and max of 3 texts
        ("modules", "dense"): (2 * 3 * 24 * 8 + 3 * 8, 72 + 192 + 8 + 24 + 24 + 24, 1),  # 24 to 8, then tanh
        ("modules", "normalize"): (3 * 24, 24 + 24, 1),
    }
    modules = (Pooling(("mean", "max")), tiny_dense(24, 8), Normalize())
    found = count_costs(np.array([7, 7, 5]), TINY, modules)
    assert found == {name: times * Cost(flop, 4 * numbers) for name, (flop, numbers, times) in by_hand.items()}
    assert list(found) == list(OPERATIONS)


def test_what_each_choice_costs():
    for act, each in {"relu": 1, "tanh": 1, "silu": 5, "gelu_new": 9}.items():
        found = count_costs(np.array([5]), replace(TINY, hidden_act=act))
        assert found["feed-forward", "activation"].flop == 2 * each * 5 * 20, act
    double = count_costs(np.array([5]), TINY, dtype="float64")["feed-forward", "activation"]
    assert double == Cost(2 * 4 * 5 * 20, 2 * 8 * 2 * 5 * 20)  # GELU has a formula of its own there
    for mode, (flop, read) in {"max": (1, 144), "mean_sqrt_len_tokens": (1, 144), "weightedmean": (2, 144)}.items():
        found = count_costs(np.array([7, 5]), TINY, (Pooling((mode,)),))  # N D = 144, B D = 24
        assert found["modules", "pooling"] == Cost(flop * 144, 4 * (read + 24)), mode
    found = count_costs(np.array([7, 5]), TINY, (Pooling(("cls", "lasttoken")),))
    assert found["modules", "pooling"] == Cost(0, 4 * 2 * (24 + 24))
    found = count_costs(np.array([5, 4]), TINY, (Pooling(), tiny_dense(12, 8, "identity", False)))
    assert found["modules", "dense"] == Cost(2 * 2 * 12 * 8, 4 * (24 + 96 + 16 + 32))
    long = count_costs(np.array([60_000], np.int32), TINY)["attention", "products"]  # its square is no int32
    assert long.flop == 2 * (2 * 2 * 3 * 60_000**2 * 4 + 2 * 60_000 * 12)


def test_the_ceiling_of_an_operation():
    ceilings = Ceilings(gflop_per_s=100.0, gb_per_s=10.0)  # they meet at 10 FLOP a byte
    for flop, read, seconds, bound in (
        (10**11, 10**9, 1.0, "compute"),
        (10**9, 10**10, 1.0, "memory"),
        (0, 10**10, 1.0, "memory"),
        (0, 0, 0.0, "compute"),
    ):
        cost = Cost(flop, read)
        assert (ceilings.least_seconds(cost), ceilings.bound(cost)) == (seconds, bound)


# ------------------------------------------------------------------------------------------------- the clock


def test_vectors_under_the_clock_are_those_of_encode_bit_for_bit(encoder):
    many = TEXTS * 60  # more than a batch
    with clocked(encoder.model):
        under_the_clock = one_pass(encoder, many)
    np.testing.assert_array_equal(under_the_clock, encoder.encode(many, num_threads=1))


def test_flop_by_formula_are_those_of_the_arrays_in_each_row(encoder, monkeypatch):
    seen = dict.fromkeys(OPERATIONS, 0)

    def watch(name, count):
        original = getattr(bert_module, name)

        def watched(*arguments, **options):
            seen[clock.current] += count(*arguments)
            return original(*arguments, **options)

        monkeypatch.setattr(bert_module, name, watched)

    watch("linear", lambda x, weight, bias: 2 * x.size * len(weight))
    watch("softmax", lambda scores: 5 * scores.size)
    watch("layer_norm", lambda x, *_: 7 * x.size)
    with clocked(encoder.model) as clock:
        one_pass(encoder, TEXTS)
    costs = count_costs(encoder.tokenize(TEXTS).lengths, TINY)
    assert sum(flop > 0 for flop in seen.values()) == 8
    assert seen == {operation: costs[operation].flop if flop else 0 for operation, flop in seen.items()}
    # calls: once a layer, three matrices, a softmax for each of the three runs of equal length
    wanted = {operation: 1 if operation[0] in ("tokenize", "embed", "modules") else 2 for operation in OPERATIONS}
    wanted |= {("attention", "Q, K, V"): 6, ("attention", "softmax"): 6, ("", "other"): 0}
    assert clock.calls == wanted


CHARGED = [
    (bert_module, "softmax", {("attention", "softmax"): 2.0}),  # once a layer
    (
        bert_module,
        "layer_norm",
        {("embed", "LayerNorm"): 1.0, ("attention", "LayerNorm"): 2.0, ("feed-forward", "LayerNorm"): 2.0},
    ),
    (bert_module, "places", {("embed", "look up, add"): 1.0}),  # in a block, in no operation with a row of its own
    (bert_module, "equal_length_runs", {("attention", "products"): 2.0}),
    (pooling_module, "linear", {("modules", "dense"): 1.0}),
    (profile_module, "make_batches", {("", "other"): 1.0}),  # between blocks
]


def test_time_is_charged_to_the_operation_that_took_it(encoder, monkeypatch):
    for module, name, seconds in CHARGED:
        original, now = getattr(module, name), [0.0]

        def slow(*arguments, original=original, now=now, **options):
            now[0] += 1.0  # time stands still but here
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, slow)
            patch.setattr(profile_module, "time", SimpleNamespace(perf_counter=lambda now=now: now[0]))
            with clocked(encoder.model) as clock:
                one_pass(encoder, ["i love soup"])
        assert {row: took for row, took in clock.seconds.items() if took} == seconds, name


def test_functions_are_what_they_were_even_after_an_error(encoder, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("in the middle")

    monkeypatch.setattr(bert_module, "softmax", broken)
    before = [dict(vars(owner)) for owner in (bert_module, pooling_module, Tokenizer)]
    with pytest.raises(ZeroDivisionError), clocked(encoder.model):
        assert dict(vars(bert_module)) != before[0]
        one_pass(encoder, TEXTS)
    assert [dict(vars(owner)) for owner in (bert_module, pooling_module, Tokenizer)] == before


def test_others_at_work_are_not_counted_and_a_second_clock_waits(encoder):
    entered = threading.Event()

    def second_clock():
        with clocked(encoder.model):
            entered.set()

    before = dict(vars(bert_module))
    other, second = threading.Thread(target=one_pass, args=(encoder, TEXTS)), threading.Thread(target=second_clock)
    with clocked(encoder.model) as clock:
        other.start()
        other.join()
        second.start()
        assert not entered.wait(0.1)
    second.join()
    assert entered.is_set() and not any(clock.calls.values()) and dict(vars(bert_module)) == before


def test_passes_are_as_many_as_fit_but_some(encoder, monkeypatch):
    assert profile(encoder, ["soup"]).passes == 3  # no patience at all
    monkeypatch.setattr(profile_module, "_PATIENCE", 60.0)
    monkeypatch.setattr(profile_module, "_MOST", 5)
    bare = encoder.with_model(replace(encoder.model, modules=encoder.model.modules[:1]))
    found = profile(bare, ["soup"])
    assert found.passes == 5 and not {row.name for row in found.rows} & {"dense", "normalize"}
    for texts, options in (([], {}), (["a"], {"num_threads": 0}), (["a"], {"passes": 0})):
        with pytest.raises(ValueError, match="profile"):
            profile(encoder, texts, **options)


# ------------------------------------------------------------------------------------------- the command line


def test_the_table(model, tmp_path):
    (tmp_path / "texts.csv").write_text("id,text\n" + "1,the cat sat\n" * 1000)
    result = run("profile", "--model", model, "-i", tmp_path / "texts.csv", "--column", "text", "--repeat", 1)
    # the kernel may be slow, which is another line
    assert "profiled: the first 409 texts; more than 2,048 tokens add nothing\n" in result.stderr
    heading, ceilings, sizes, _, head, *table = result.stdout.splitlines()
    assert heading == "tiny-model, float32: 409 texts, 2,045 tokens, 5 batches, 1 thread; median of 1 pass"
    assert "GFLOP/s" in ceilings
    assert "N = 409 tokens" in sizes and "D = 12, H = 3, K = 4, F = 20; 2 layers" in sizes
    names = [line[: head.index("shapes")].strip() for line in table[: table.index("")]]
    wanted = [name.replace("activation", "gelu") for _, name in OPERATIONS][1:]
    for place, block in ((0, "embed"), (3, "attention"), (9, "feed-forward"), (15, "modules")):
        wanted.insert(place, block)
    assert names == ["tokenize", *wanted, "other", "-" * len(names[-2]), "total"]
    assert table[table.index("") - 1].split()[2:4] == ["100.0", "%"]
    assert "--max-seq-length" in run("profile", "--model", model, "the cat " * 20, "--repeat", 1).stderr
    (tmp_path / "empty.txt").write_text("")
    for arguments, code in (([], 2), (["-i", tmp_path / "empty.txt"], 1), (["x", "--repeat", 0], 2)):
        assert refused("profile", "--model", model, *arguments, code=code)


def test_json_has_everything_and_adds_up(model, encoder, tmp_path):
    many = TEXTS * 60  # more than a batch
    (tmp_path / "texts.txt").write_text("\n".join(many) + "\n")
    before = [library["num_threads"] for library in parallel.libraries()]
    options = ["--repeat", 2, "--dtype", "float64", "--num-threads", 2]
    got = told("profile", "--model", model, "-i", tmp_path / "texts.txt", *options)
    lengths = encoder.tokenize(many).lengths
    batches = [lengths[batch] for batch in make_batches(lengths)]
    assert (got["model"], got["dtype"], got["texts"], got["tokens"]) == (str(model), "float64", 300, lengths.sum())
    assert (got["batches"], got["num_threads"], got["passes"]) == (len(batches), 2, 2) and len(batches) > 1
    assert [library["num_threads"] for library in parallel.libraries()] == before
    assert [(one["block"], one["name"]) for one in got["rows"]] == list(OPERATIONS)
    costs = [count_costs(batch, TINY, encoder.model.modules, "float64") for batch in batches]
    for one in got["rows"]:
        assert Cost(**one["cost"]) == sum((each[one["block"], one["name"]] for each in costs), Cost())
    assert got["seconds"] == pytest.approx(sum(one["seconds"] for one in got["rows"]) + got["other"])
    ceilings = Ceilings(**got["ceilings"])
    least = sum(ceilings.least_seconds(Cost(**one["cost"])) for one in got["rows"])
    assert got["least_seconds"] == pytest.approx(least) and got["unclocked"] > 0.0
