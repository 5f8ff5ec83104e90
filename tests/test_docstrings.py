"""What a user imports is documented in numpydoc's sections, with an example; pytest itself runs every example."""

import importlib
import inspect
import re

import pytest

ROOMS = ["minisbert", *map("minisbert.{}".format, ["model", "training", "search", "evaluation", "plots", "proof"])]


def public_names():
    for room in ROOMS:
        for name in getattr(importlib.import_module(room), "__all__", ()):
            yield f"{room}.{name}"


@pytest.mark.parametrize("path", public_names())
def test_what_a_user_imports_is_documented(path):
    room, _, name = path.rpartition(".")
    thing = getattr(importlib.import_module(room), name)
    if not callable(thing) or (isinstance(thing, type) and issubclass(thing, Exception)):
        return
    text = thing.__doc__ or ""
    wanted = ["Examples"] if inspect.signature(thing).parameters == {} else ["Parameters", "Examples"]
    missing = [section for section in wanted if not re.search(rf"^ *{section}\n *-+$", text, re.MULTILINE)]
    assert not missing and ">>> " in text, f"{path}: no {missing or 'example'}"
