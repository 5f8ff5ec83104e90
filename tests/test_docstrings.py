"""What a user imports is documented in numpydoc's sections, with an example; pytest itself runs every example."""

import importlib
import inspect
import re

ROOMS = ["minisbert"]
ROOMS += [f"minisbert.{room}" for room in ("model", "training", "search", "evaluation", "analysis", "plots", "proof")]


def test_what_a_user_imports_is_documented():
    wanting = {}
    for room in map(importlib.import_module, ROOMS):
        for name in getattr(room, "__all__", ()):
            thing = getattr(room, name)
            if not callable(thing) or (isinstance(thing, type) and issubclass(thing, Exception)):
                continue
            text = thing.__doc__ or ""
            wanted = ["Examples"] if inspect.signature(thing).parameters == {} else ["Parameters", "Examples"]
            missing = [section for section in wanted if not re.search(rf"^ *{section}\n *-+$", text, re.MULTILINE)]
            if missing or ">>> " not in text:
                wanting[f"{room.__name__}.{name}"] = missing or "an example"
    assert wanting == {}
