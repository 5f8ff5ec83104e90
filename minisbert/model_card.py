"""The model card that is saved beside a model: README.md with the header that the Hugging Face Hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from minisbert.model.folder import SentenceModel
from minisbert.model.pooling import Pooling

_USE = """## Use

```python
from minisbert import SentenceEncoder  # or: from sentence_transformers import SentenceTransformer as SentenceEncoder

model = SentenceEncoder("{name}")
vectors = model.encode(["The weather is lovely today.", "It's so sunny outside!"])
print(model.similarity(vectors, vectors))
```
"""


def model_card(
    model: SentenceModel,
    name: str,
    base_model: str,
    train_datasets: Sequence[str] = (),
    loss: str | None = None,
    scores: Mapping[str, float] | None = None,
) -> str:
    """Say what a model is, and what it was trained with as far as that is known.

    A base model and data sets on the Hub (``owner/name``) stand in the header too, where the Hub links to them.
    """
    modules = [f"BERT of {model.config.num_hidden_layers} layers"]
    for module in model.modules:
        kind = type(module).__name__
        modules.append(f"{kind} ({', '.join(module.modes)})" if isinstance(module, Pooling) else kind)
    rows = {
        "Base model": base_model,
        "Modules": ", ".join(modules),
        "Dimensions": str(model.width),
        "Maximum length": f"{model.max_seq_length} tokens",
        "Similarity": model.similarity_fn_name,
        "Prompts": ", ".join(f"{key}: {json.dumps(text, ensure_ascii=False)}" for key, text in model.prompts.items()),
        "Training data": ", ".join(train_datasets),
        "Loss": loss or "",
        **{f"Score: {test}": f"{score:.2f}" for test, score in (scores or {}).items()},
    }
    header = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction", "minisbert"],
        "base_model": base_model if _is_on_the_hub(base_model) else None,
        "datasets": [data for data in train_datasets if _is_on_the_hub(data)],
    }
    lines = [
        "---",
        *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items() if value),  # JSON is YAML
        "---",
        "",
        f"# {name}",
        "",
        f"A [sentence-transformers](https://www.sbert.net) model: text to vectors of {model.width} dimensions.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {_cell(value)} |" for key, value in rows.items() if value),
        "",
        _USE.format(name=name),
    ]
    return "\n".join(lines)


def _is_on_the_hub(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
