"""What was learnt is saved whole or not at all, read back bit for bit, and refused when it is not what it was."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save as tensor_bytes

import minisbert.analysis.saved as saved
from minisbert.analysis.saved import SavedError, check_place, load_folder, origin_from, origin_to_json, save_folder
from minisbert.saved import Origin

FACTS = {"classes": ["gut", "schlecht ☹"], "strength": 0.1, "threshold": None, "deep": {"list": [1, 2.5, True]}}


def tensors(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "weight": rng.standard_normal((3, 5)),
        "bias": rng.standard_normal(3).astype(np.float32),
        "scalar": np.array(rng.standard_normal()),
        "none": np.empty((0, 4), np.float32),
        "counts": np.arange(4),
    }


@pytest.fixture
def folder(tmp_path):
    save_folder(tmp_path / "mood", "classifier", FACTS, tensors())
    return tmp_path / "mood"


def edit(file, change):
    head = json.loads(file.read_text())
    change(head)
    file.write_text(json.dumps(head))


def test_what_is_read_is_what_was_written(folder):
    facts, numbers = load_folder(folder, "classifier")
    assert facts == FACTS
    expected = tensors()
    assert numbers.keys() == expected.keys()
    for name, array in expected.items():
        assert numbers[name].dtype == array.dtype and numbers[name].shape == array.shape
        assert numbers[name].tobytes() == array.tobytes()


def test_arrays_that_do_not_lie_in_order_are_written_by_their_values(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    strange = {"turned": array.T, "every second": array[:, ::2], "fortran": np.asfortranarray(array)}
    save_folder(tmp_path / "f", "classifier", {}, strange)
    _, numbers = load_folder(tmp_path / "f", "classifier")
    for name, expected in strange.items():
        np.testing.assert_array_equal(numbers[name], expected)


def test_other_people_may_read_the_folder_and_nothing_else_is_left(folder):
    assert folder.stat().st_mode & 0o755 == 0o755
    assert [path.name for path in folder.parent.iterdir()] == ["mood"]
    assert json.loads((folder / "classifier.json").read_text())["format"] == "minisbert classifier"


def test_folders_above_are_made_and_an_empty_folder_is_free(tmp_path):
    save_folder(tmp_path / "a" / "b", "classifier", FACTS, tensors())
    (tmp_path / "empty").mkdir()
    save_folder(tmp_path / "empty", "classifier", FACTS, tensors())
    assert load_folder(tmp_path / "a" / "b", "classifier")[0] == load_folder(tmp_path / "empty", "classifier")[0]


# ------------------------------------------------------------------------------------------------- replacing


def test_what_exists_is_replaced_only_by_force(folder):
    before = (folder / "classifier.safetensors").read_bytes()
    with pytest.raises(SavedError, match=r"already exists.*force=True"):
        save_folder(folder, "classifier", {}, tensors(1))
    assert (folder / "classifier.safetensors").read_bytes() == before
    save_folder(folder, "classifier", {"new": 1}, tensors(1), force=True)
    facts, numbers = load_folder(folder, "classifier")
    assert facts == {"new": 1} and numbers["weight"].tobytes() == tensors(1)["weight"].tobytes()
    assert [path.name for path in folder.parent.iterdir()] == ["mood"]


def test_force_replaces_no_other_kind_and_nothing_of_the_user(folder, tmp_path):
    with pytest.raises(SavedError, match="not just a folder of kind 'entities'"):
        save_folder(folder, "entities", {}, tensors(), force=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(SavedError, match=r"notes\.txt"):
        save_folder(folder, "classifier", {}, tensors(), force=True)
    assert (folder / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SavedError, match="expected a folder"):
        save_folder(tmp_path / "file", "classifier", {}, tensors(), force=True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "classifier.safetensors").write_bytes(b"")
    with pytest.raises(SavedError, match=r"there is no classifier\.json"):
        check_place(tmp_path / "half", "classifier", force=True)


def test_a_damaged_one_is_replaced_by_force(folder):
    (folder / "classifier.json").write_text("{")
    save_folder(folder, "classifier", FACTS, tensors(), force=True)
    assert load_folder(folder, "classifier")[0] == FACTS


def test_a_link_stays_a_link(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    save_folder(link, "classifier", {"new": 1}, tensors(1), force=True)
    assert link.is_symlink() and load_folder(folder, "classifier")[0] == {"new": 1}


@pytest.mark.parametrize("when", ["writing", "moving"])
def test_a_failure_leaves_the_old_folder_and_no_crumbs(folder, monkeypatch, when):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if when == "writing":
        monkeypatch.setattr(saved, "_write", lambda file, content: (_ for _ in ()).throw(OSError(28, "disk full")))
    else:
        replace, calls = saved.Path.replace, []

        def fail_at_second(self, target):
            calls.append(target)
            if len(calls) == 2:
                raise OSError(28, "disk full")
            return replace(self, target)

        monkeypatch.setattr(saved.Path, "replace", fail_at_second)
    with pytest.raises(OSError, match="disk full"):
        save_folder(folder, "classifier", {}, tensors(1), force=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["mood"]


def test_a_failure_leaves_nothing_where_nothing_was(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "_write", lambda file, content: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_folder(tmp_path / "mood", "classifier", {}, tensors())
    assert list(tmp_path.iterdir()) == []


def test_killed_between_the_two_renames_the_old_folder_is_named(folder):
    target = folder.parent
    folder.rename(target / ".mood-x1y2.replaced")
    with pytest.raises(SavedError, match=r"\.mood-x1y2\.replaced: rename it"):
        load_folder(folder, "classifier")
    (target / ".mood-x1y2.replaced").rename(folder)
    assert load_folder(folder, "classifier")[0] == FACTS


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_not_written(tmp_path, bad):
    with pytest.raises(SavedError, match=r"1 of 2 in 'bias' are NaN or infinite"):
        save_folder(tmp_path / "mood", "classifier", {}, {"bias": np.array([0.0, bad])})
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_folder(tmp_path / "mood", "classifier", {"strength": bad}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_kind_is_a_name(tmp_path):
    with pytest.raises(SavedError, match="kind must be a name"):
        save_folder(tmp_path / "mood", "../evil", {}, {})


# -------------------------------------------------------------------------------------------------- reading


def test_another_kind_is_named(folder):
    with pytest.raises(SavedError, match=r"expected kind 'entities'.*looks like: classifier"):
        load_folder(folder, "entities")
    for suffix in ("json", "safetensors"):
        (folder / f"classifier.{suffix}").rename(folder / f"entities.{suffix}")
    with pytest.raises(SavedError, match="expected the format 'minisbert entities', got 'minisbert classifier'"):
        load_folder(folder, "entities")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.update(version=2), "version 2.*reads up to 1; update"),
        (lambda head: head.update(version=0), "expected version 1, got 0"),
        (lambda head: head.update(version=True), "expected version 1, got True"),
        (lambda head: head.update(version="1"), "expected version 1, got '1'"),
        (lambda head: head.update(facts=[1]), "'facts' are missing"),
        (lambda head: head.pop("tensors_sha256"), "'tensors_sha256' or"),
        (lambda head: head.update(tensors_sha256="0" * 64), "different runs"),
        (lambda head: head.update(format=7), "got 7"),
        (lambda head: head["facts"].update(strength=float("nan")), "NaN is not a number"),
    ],
)
def test_a_head_that_says_something_else_is_refused(folder, change, message):
    edit(folder / "classifier.json", change)
    with pytest.raises(SavedError, match=message):
        load_folder(folder, "classifier")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe{", b"[" * 100_000, b'{"format"'])
def test_damaged_json_is_refused(folder, content):
    (folder / "classifier.json").write_bytes(content)
    with pytest.raises(SavedError, match=r"damaged|expected the format"):
        load_folder(folder, "classifier")


def test_every_byte_of_the_numbers_counts(folder):
    file = folder / "classifier.safetensors"
    content = file.read_bytes()
    for place in range(0, len(content), 37):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(SavedError, match="different runs"):
            load_folder(folder, "classifier")
    file.write_bytes(content[:-1])
    with pytest.raises(SavedError, match="different runs"):
        load_folder(folder, "classifier")


def test_two_trainings_cannot_be_mixed(folder, tmp_path):
    save_folder(tmp_path / "other", "classifier", FACTS, tensors(1))
    os.replace(tmp_path / "other" / "classifier.safetensors", folder / "classifier.safetensors")
    with pytest.raises(SavedError, match="different runs"):
        load_folder(folder, "classifier")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable safetensors"),
        (b"\xff" * 8 + b"{}", "not a readable safetensors"),
        (tensor_bytes({"bias": np.array([np.nan])}), "holds NaN or infinite"),
        (tensor_bytes({"bias": np.array([-np.inf], np.float16)}), "holds NaN or infinite"),
    ],
)
def test_numbers_that_lie_though_their_hash_fits_are_refused(folder, content, message):
    import hashlib

    (folder / "classifier.safetensors").write_bytes(content)
    edit(folder / "classifier.json", lambda head: head.update(tensors_sha256=hashlib.sha256(content).hexdigest()))
    with pytest.raises(SavedError, match=message):
        load_folder(folder, "classifier")


@pytest.mark.parametrize("name", ["classifier.json", "classifier.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(SavedError, match=f"{name} is missing"):
        load_folder(folder, "classifier")


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path):
    with pytest.raises(SavedError, match="no such folder"):
        load_folder(tmp_path / "none", "classifier")
    (tmp_path / "file").write_text("x")
    with pytest.raises(SavedError, match=r"expected a folder|cannot be read"):
        load_folder(tmp_path / "file", "classifier")
    (tmp_path / "odd" / "classifier.json").mkdir(parents=True)
    with pytest.raises(SavedError, match="cannot be read"):
        load_folder(tmp_path / "odd", "classifier")


# --------------------------------------------------------------------------------------------------- origin


@pytest.mark.parametrize("origin", [None, Origin("tiny", "ab12", 256), Origin("tiny", "ab12", None)])
def test_an_origin_survives_json(origin):
    assert origin_from(json.loads(json.dumps(origin_to_json(origin))), "f") == origin


@pytest.mark.parametrize(
    "said",
    [
        "tiny",
        {},
        {"model": "tiny", "fingerprint": "ab"},
        {"model": 1, "fingerprint": "ab", "max_seq_length": 1},
        {"model": "tiny", "fingerprint": "ab", "max_seq_length": True},
        {"model": "tiny", "fingerprint": "ab", "max_seq_length": 1, "more": 1},
    ],
)
def test_a_damaged_origin_is_refused(said):
    with pytest.raises(SavedError, match="damaged"):
        origin_from(said, "f")
