"""Record what PyTorch computes on tiny random checkpoints: `python tests/reference/make_reference.py`.

Each case of `CASES` becomes one .npz beside this script: the weights, every intermediate tensor of
sentence-transformers in float64, and the versions that made them. The tests that read them need NumPy alone.
"""

import json
import platform
import sys
import tempfile
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tiny import TINY, named_tensors, tiny_dense, tiny_params, write_model  # noqa: E402

from minisbert.model.pooling import Dense, Normalize, Pooling  # noqa: E402

TEXTS = ("i love soup", "the cat sat on a mat!", "", "Dog, unable")
LIMIT = 9  # cuts the second text

CASES = {
    "gelu-mean-normalized": (TINY, (Pooling(), Normalize())),
    "gelu-new-cls": (replace(TINY, hidden_act="gelu_new"), (Pooling(("cls",)),)),
    "relu-max": (replace(TINY, hidden_act="relu", num_attention_heads=1), (Pooling(("max",)),)),
    "silu-weightedmean": (replace(TINY, hidden_act="silu", num_hidden_layers=1), (Pooling(("weightedmean",)),)),
    "gelu-lasttoken-one-type": (replace(TINY, type_vocab_size=1), (Pooling(("lasttoken",)),)),
    "gelu-all-poolings-dense": (
        replace(TINY, num_attention_heads=4, layer_norm_eps=1e-6),
        (
            Pooling(("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")),
            tiny_dense(72, 10, "gelu"),
            tiny_dense(10, 10, "tanh", bias=False),
            Normalize(),
        ),
    ),
}


def write_case(name: str, folder: Path) -> Path:
    """Write the model folder of a case with weights drawn anew."""
    config, modules = CASES[name]
    return write_model(folder, config=config, modules=modules, params=tiny_params(config, seed=sum(name.encode())))


def torch_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of sentence-transformers for the texts, in float64."""
    from minisbert.proof.reference import torch_reference

    return torch_reference(folder, TEXTS, "float64", LIMIT).tensors


def main() -> None:
    libraries = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
    versions = {"Python": platform.python_version(), **{name: version(name) for name in libraries}}
    for name, (config, modules) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            tensors = torch_tensors(write_case(name, Path(folder) / name))
        weights = named_tensors(config, tiny_params(config, seed=sum(name.encode())))
        for i, module in enumerate(modules):
            if isinstance(module, Dense):
                weights[f"modules.{i}.weight"] = module.weight
                if module.bias is not None:
                    weights[f"modules.{i}.bias"] = module.bias
        about = json.dumps({"texts": TEXTS, "limit": LIMIT, "config": asdict(config), "versions": versions})
        file = HERE / f"{name}.npz"
        stored = {f"weights/{key}": value for key, value in weights.items()}
        stored |= {f"torch/{key}": value for key, value in tensors.items()}
        np.savez_compressed(file, about=np.array(about), **stored)
        print(f"{file.name}: {len(tensors)} tensors, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
