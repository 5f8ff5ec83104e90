r"""One HTML file from a template and data of strangers: it runs its own scripts, no other, and fetches nothing.

**Texts come from strangers**: they stand in the page as JSON inside a ``<script>`` that no browser runs, with ``<``,
``>`` and ``&`` written as ``\u003c`` and so on, and the page's scripts insert them as text, never as HTML. A content
security policy lets the browser run only the scripts and styles with these hashes, and fetch nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any


def assemble(template: Path, title: str, data: Any, **parts: str) -> str:
    """Fill a template: ``{{file NAME}}`` with a file beside it, ``{{title}}``, ``{{data}}`` as JSON, other parts as is.

    ``{{policy}}`` becomes the content security policy: the page's own scripts and styles, and nothing else.
    """
    page = re.sub(
        r"\{\{file (\S+)\}\}",
        lambda found: (template.parent / found[1]).read_text(encoding="utf-8"),
        template.read_text(encoding="utf-8"),
    )
    rules = ["default-src 'none'", "base-uri 'none'", "form-action 'none'"]
    for name in ("script", "style"):
        inside = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inside]
        rules.append(" ".join([f"{name}-src", *(f"'sha256-{digest}'" for digest in digests)]))
    filling = {"policy": "; ".join(rules), "title": html.escape(title), "data": json_for_html(data), **parts}
    # in one pass, so that {{title}} in a text is not filled in
    return re.sub(rf"\{{\{{({'|'.join(filling)})\}}\}}", lambda found: filling[found[1]], page)


def json_for_html(value: Any) -> str:
    r"""JSON that may stand inside a ``<script>``: nothing in it ends the element or begins another.

    >>> print(json_for_html("</script><!-- & 好き"))
    "\u003c/script\u003e\u003c!-- \u0026 好き"
    """
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # lone surrogates have no UTF-8, and U+2028 and U+2029 end a line in some parsers
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", written)
