"""The library that multiplies matrices: its kernel is judged, its threads are borrowed and given back."""

import json
import os
import subprocess
import sys
import threading
import warnings

import pytest
from tiny import write_model

from minisbert import SentenceEncoder, encoder, parallel
from minisbert.parallel import Processor, environment_for, libraries, read_processor, slower_than_possible, threads

AVX2 = frozenset({"sse2", "avx", "avx2", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: some processor: with a colon
flags\t\t: fpu avx avx2 fma avx512f

processor\t: 1
vendor_id\t: GenuineIntel
flags\t\t: fpu
"""


def numbers() -> list[int]:
    return [library["num_threads"] for library in libraries()]


def test_a_number_that_the_library_refuses_is_forgotten(monkeypatch):
    before = numbers()
    with monkeypatch.context() as patch:
        patch.setattr(parallel.threads, "_set", lambda numbers: 1 / 0 if 3 in numbers else None)
        with pytest.raises(ZeroDivisionError), parallel.threads.hold(3):
            pass
    with parallel.threads.hold(1):
        assert set(numbers()) <= {1}
    assert numbers() == before


def test_the_first_processor_is_read(tmp_path):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    found = frozenset({"fpu", "avx", "avx2", "fma", "avx512f"})
    assert read_processor(tmp_path / "cpuinfo") == Processor("AuthenticAMD", found, "some processor: with a colon")
    assert read_processor(tmp_path / "none") == Processor()


def test_a_slow_kernel_is_told_from_the_right_one():
    for running in ("Haswell", "Zen", "Nehalem"):
        said = slower_than_possible(running, Processor("", AVX512), {})
        assert "set OPENBLAS_CORETYPE=SkylakeX in the environment before NumPy is first imported" in said
    fast = [(kernel, AVX512) for kernel in ("SkylakeX", "Cooperlake", "future", None)]
    knights_landing = AVX512 - {"avx512vl"}
    for running, flags in (*fast, ("Haswell", knights_landing), ("Haswell", AVX2), ("neoversen1", frozenset())):
        assert slower_than_possible(running, Processor("", flags), {}) is None
    said = slower_than_possible("Haswell", Processor("", AVX512), {"OPENBLAS_CORETYPE": "Haswell"})
    assert "the environment says OPENBLAS_CORETYPE=Haswell; unset it, or set it to SkylakeX" in said


def test_the_remedy_is_applied_only_where_it_is_known_to_help():
    assert environment_for(Processor("AuthenticAMD", AVX512), {}) == {"OPENBLAS_CORETYPE": "SkylakeX"}
    assert (
        environment_for(Processor("AuthenticAMD", AVX512), {"OPENBLAS_CORETYPE": "Haswell"}) == {}
    )  # what is set wins
    for processor in (Processor("AuthenticAMD", AVX2), Processor("GenuineIntel", AVX512), Processor()):
        assert environment_for(processor, {}) == {}


COMMAND_LINE = """
import os, sys
from minisbert import cli, parallel
assert "numpy" not in sys.modules
parallel.read_processor = lambda: parallel.Processor("AuthenticAMD", frozenset(sys.argv[1].split()))
cli.main(["tokens", "--help"], standalone_mode=False)
print(os.environ.get("OPENBLAS_CORETYPE"))
"""


def test_the_command_line_sets_the_kernel_before_numpy_is_there():
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    command = [sys.executable, "-c", COMMAND_LINE, " ".join(AVX512)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.splitlines()[-1] == "SkylakeX"


@pytest.mark.skipif(not read_processor().has_avx512, reason="no AVX-512: no kernel is known to be faster")
def test_info_names_the_kernel_that_runs_and_warns_of_a_slow_one():
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}
    command = [sys.executable, "-m", "minisbert", "info", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    machine = json.loads(run.stdout)["machine"]
    kernels = [library["architecture"] for library in machine["blas"] if library["internal_api"] == "openblas"]
    if not kernels:
        pytest.skip("NumPy has another BLAS here")
    assert kernels == ["Nehalem"]
    assert "unset it, or set it to" in machine["blas_advice"]
    assert f"Warning: {machine['blas_advice']}" in run.stderr


def test_the_library_says_it_once_about_much_work_and_changes_nothing(tmp_path, monkeypatch):
    made = SentenceEncoder(write_model(tmp_path / "model"))
    before = dict(os.environ)
    monkeypatch.setattr(encoder, "advice", lambda: "set OPENBLAS_CORETYPE=SkylakeX")
    many = ["soup"] * encoder.MANY_TEXTS
    with pytest.warns(parallel.SlowKernelWarning, match="OPENBLAS_CORETYPE") as caught:
        made.encode(many)
    with pytest.warns(parallel.SlowKernelWarning, match="OPENBLAS_CORETYPE") as caught_in_stream:
        list(made.encode_stream(many, block_texts=100))
    assert len(caught) == len(caught_in_stream) == 1
    assert caught[0].filename == caught_in_stream[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.encode(many[1:])
    assert dict(os.environ) == before


# --- threads --------------------------------------------------------------------------------------------------


def test_threads_are_held_and_given_back():
    before = numbers()
    with threads.hold(1):
        assert set(numbers()) <= {1}
        with threads.hold(3):  # somebody else, at the same time: the smaller number holds
            assert set(numbers()) <= {1}
    assert numbers() == before
    with pytest.raises(ZeroDivisionError), threads.hold(1):
        _ = 1 / 0
    assert numbers() == before


def test_overlapping_holders_restore_what_was_there_first():
    before, entered, leave = numbers(), threading.Event(), threading.Event()

    def other() -> None:
        with threads.hold(1):
            entered.set()
            leave.wait(10)

    worker = threading.Thread(target=other)
    with threads.hold(2):
        worker.start()
        entered.wait(10)
    assert set(numbers()) <= {1}  # the other one is still at work
    assert threads.usable() >= 1
    leave.set()
    worker.join()
    assert numbers() == before


def test_usable_threads_obey_what_the_caller_told_blas():
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        assert threads.usable() == 1
    usable = threads.usable()
    with threads.hold(1):  # our own holding is no wish of the caller's
        assert threads.usable() == usable
