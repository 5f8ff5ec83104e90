"""What was learnt is saved whole or not at all, read back bit for bit, and refused when it is not what it was."""

import errno
import hashlib
import json
import os

import numpy as np
import pytest
from safetensors.numpy import save as tensor_bytes

from minisbert.saved import Origin, SavedError, check_place, load_folder, save_folder

FACTS = {"classes": ["gut", "schlecht ☹"], "strength": 0.1, "threshold": None, "deep": {"list": [1, 2.5, True]}}


def tensors(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "weight": rng.standard_normal((5, 3)).T,
        "bias": rng.standard_normal(3).astype(np.float32),
        "scalar": np.array(rng.standard_normal()),
        "none": np.empty((0, 4), np.float32),
        "counts": np.arange(4),
    }


@pytest.fixture
def folder(tmp_path):
    save_folder(tmp_path / "mood", "classifier", FACTS, tensors())
    return tmp_path / "mood"


def test_what_is_read_is_what_was_written(folder):
    facts, numbers = load_folder(folder, "classifier")
    assert facts == FACTS and numbers.keys() == tensors().keys()
    for name, array in tensors().items():
        assert numbers[name].dtype == array.dtype and np.array_equal(numbers[name], array), name
    assert sorted(file.name for file in folder.iterdir()) == ["classifier.json", "classifier.safetensors"]


def test_force_replaces_the_same_kind_and_nothing_of_the_user(folder, tmp_path):
    save_folder(folder, "classifier", {"new": 1}, tensors(1), force=True)
    facts, numbers = load_folder(folder, "classifier")
    assert facts == {"new": 1} and np.array_equal(numbers["weight"], tensors(1)["weight"])
    (folder / "classifier.json").write_text("{")  # a damaged one, too, and through a link
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    save_folder(tmp_path / "link", "classifier", FACTS, tensors(), force=True)
    assert (tmp_path / "link").is_symlink() and load_folder(folder, "classifier")[0] == FACTS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mood"]


def test_a_full_disk_leaves_the_old_folder_and_is_named(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="mood"):
        save_folder(folder, "classifier", {}, tensors(1), force=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["mood"]


def test_killed_between_the_two_renames_the_old_folder_is_named(folder):
    folder.rename(folder.with_name(".mood.replaced"))
    with pytest.raises(SavedError, match=r"\.mood\.replaced: rename it"):
        load_folder(folder, "classifier")


def occupied(folder):
    (folder / "notes.txt").write_text("mine")


def headless(folder):
    for file in (folder / "classifier.json", folder / "notes.txt"):
        file.unlink(missing_ok=True)


def a_file(folder):
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("mine")


def test_a_place_that_is_not_free_is_refused(folder):
    for spoil, kind, force, key in (
        (None, "classifier", False, "force=True"),
        (None, "entities", True, "kind 'entities'"),
        (occupied, "classifier", True, r"notes\.txt"),
        (headless, "classifier", True, r"no classifier\.json"),
        (a_file, "classifier", True, "got a file"),
    ):
        if spoil:
            spoil(folder)
        with pytest.raises(SavedError, match=key):
            check_place(folder, kind, force=force)
        with pytest.raises(SavedError, match=key):
            save_folder(folder, kind, {}, {}, force=force)


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(SavedError, match="'bias'"):
        save_folder(tmp_path / "mood", "classifier", {}, {"bias": np.array([0.0, np.nan])})
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_folder(tmp_path / "mood", "classifier", {"strength": np.inf}, {})
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- reading


def head(change):
    """Change the JSON."""

    def spoil(folder):
        said = json.loads((folder / "classifier.json").read_text())
        change(said)
        (folder / "classifier.json").write_text(json.dumps(said))

    return spoil


def numbers(content):
    """Replace the arrays, and let their hash fit."""

    def spoil(folder):
        (folder / "classifier.safetensors").write_bytes(content)
        head(lambda said: said.update(tensors_sha256=hashlib.sha256(content).hexdigest()))(folder)

    return spoil


def other_training(folder):
    save_folder(folder.with_name("other"), "classifier", FACTS, tensors(1))
    os.replace(folder.with_name("other") / "classifier.safetensors", folder / "classifier.safetensors")


# ----------------------------------------------------------------------------------------------------- origin


def other_kind(folder):
    for suffix in ("json", "safetensors"):
        (folder / f"classifier.{suffix}").rename(folder / f"entities.{suffix}")


def flipped(folder):
    """A single bit of the last number."""
    content = bytearray((folder / "classifier.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "classifier.safetensors").write_bytes(content)


REFUSED = [
    (lambda folder: folder.rename(folder.with_name("gone")), "no such folder"),
    (a_file, "cannot be read"),
    (headless, r"classifier\.json is missing"),
    (lambda folder: (folder / "classifier.safetensors").unlink(), r"classifier\.safetensors is missing"),
    (other_kind, "looks like: entities"),
    (other_training, "of another run"),
    (flipped, "of another run"),
    (head(lambda said: said.update(version=2)), "got 2"),
    (head(lambda said: said.update(version=True)), "got True"),
    (head(lambda said: said.update(format="minisbert entities")), "got 'minisbert entities'"),
    (head(lambda said: said.update(facts=[1])), "'facts' are missing"),
    (head(lambda said: said["facts"].update(strength=float("nan"))), "NaN"),
    (numbers(b"\xff" * 8 + b"{}"), "safetensors"),
    (numbers(tensor_bytes({"bias": np.array([-np.inf], np.float16)})), "'bias' holds NaN"),
    *[
        (lambda folder, content=content: (folder / "classifier.json").write_bytes(content), "damaged")
        for content in (b"", b"[]", b"\xff\xfe{", b"[" * 100_000)
    ],
]


def test_another_or_a_damaged_folder_is_refused(tmp_path):
    for i, (spoil, key) in enumerate(REFUSED):
        folder = tmp_path / str(i) / "mood"
        folder.parent.mkdir()
        save_folder(folder, "classifier", FACTS, tensors())
        spoil(folder)
        with pytest.raises(SavedError, match=key):
            load_folder(folder, "classifier")


def test_an_origin_survives_and_a_damaged_one_is_refused(tmp_path):
    for origin in (None, Origin("tiny", "ab12", 256), Origin("tiny", "ab12", None)):
        save_folder(tmp_path / "mood", "classifier", {"origin": origin}, {}, force=True)
        assert Origin.read(load_folder(tmp_path / "mood", "classifier")[0]["origin"], "f") == origin
    good = {"model": "tiny", "fingerprint": "ab", "max_seq_length": 1}
    for said in ("tiny", {}, good | {"model": 1}, good | {"max_seq_length": True}, good | {"more": 1}):
        with pytest.raises(SavedError, match="damaged"):
            Origin.read(said, "f")
