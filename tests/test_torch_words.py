"""SentenceEncoder's words beside those of the installed sentence-transformers: names, their order, and idioms."""

import inspect

import numpy as np
import pytest
from tiny import write_model
from torch_oracle import THIRD_PARTY_WARNINGS

from minisbert import SentenceEncoder, similarity

pytestmark = [pytest.mark.filterwarnings(w) for w in THIRD_PARTY_WARNINGS]

TEXTS = ["i love soup", "the cat sat on the mat", "dog"]
BOUND = 2e-6  # float32, another order of adding; measured 2.4e-7

# What their users type. Each works and gives what theirs gives, or is refused with the words beside it.
IDIOMS = {
    "model.encode(texts)": None,
    "model.encode('i love soup')": None,
    "model.encode(inputs=texts)": None,
    "model.encode(texts, None, 'the ')": None,
    "model.encode(texts, None, None, 2, False)": None,
    "model.encode(texts, show_progress_bar=None)": None,
    "model.encode(texts, convert_to_tensor=False, normalize_embeddings=True, device='cpu', precision='float32')": None,
    "model.encode(texts, truncate_dim=4)": None,
    "model.encode(texts, prompt_name='document')": None,
    "model.encode(texts, output_value='token_embeddings')[1].numpy() if torch else "
    "model.encode(texts, output_value='token_embeddings')[1]": None,
    "model.encode_query('dog', normalize_embeddings=True)": None,
    "model.encode_document(texts)": None,
    "model.encode_document(texts, prompt_name='query')": None,
    "model.similarity(model.encode(texts), model.encode(texts[:2]))": None,
    "model.similarity_pairwise(model.encode(texts), model.encode(texts))": None,
    "model.get_embedding_dimension() + model.get_sentence_embedding_dimension()": None,
    "model.get_max_seq_length() + model.max_seq_length": None,
    "str([model.similarity_fn_name, model.default_prompt_name, model.truncate_dim, model.prompts['query']])": None,
    "str(model.device)": None,
    "ST(model_name_or_path=folder, truncate_dim=3, device='cpu').encode(texts)": None,
    "ST(folder, prompts={'classify': 'dog '}).encode(texts, prompt_name='classify')": None,
    "ST(folder, default_prompt_name='query').encode(texts)": None,
    "ST(folder, similarity_fn_name='dot').similarity(np.eye(2, dtype='f'), np.eye(2, dtype='f') * 2)": None,
    "ST(folder, local_files_only=True, revision=None, token=None).encode(texts)": None,
    "ST(model.save_pretrained(saved) or saved).encode(texts)": None,
    "ST(model.save(saved, model_name='mine') or saved).encode(texts)": None,
    "model.encode([])": (0, 12),
    "model.encode(texts, convert_to_tensor=True)": "convert_to_tensor=True is not supported: torch.from_numpy",
    "model.encode(texts, convert_to_numpy=False)": "convert_to_numpy=False is not supported: torch.from_numpy",
    "model.encode(texts, precision='int8')": "precision='int8' is not supported: vectors are float32",
    "model.encode(texts, device='cuda')": "device='cuda' is not supported: everything is computed on the CPU",
    "model.encode(texts, output_value=None)": "output_value must be one of .*got None",
    "model.encode(texts, pool={'input': None})": "pool=.* is not supported.*num_threads=",
    "model.encode(texts, chunk_size=100)": "chunk_size=100 is not supported.*chunk_tokens=",
    "model.encode([('i love soup', 'dog')])": "sentences.0.: .*cross-encoder",
    "model.encode(texts, prompt_name='unknown')": "prompt_name 'unknown' is none of",
    "ST(folder, device='cuda')": "device='cuda' is not supported",
    "model.save_pretrained(saved, safe_serialization=False)": "safe_serialization must be True",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    settings = {"prompts": {"query": "the cat "}, "default_prompt_name": None}
    return str(write_model(tmp_path_factory.mktemp("words") / "model", sentence_settings=settings))


@pytest.fixture(scope="module")
def names(folder, sentence_transformers, torch):
    """What the idioms may name, ours and theirs."""
    theirs = sentence_transformers.SentenceTransformer
    return [
        {"ST": kind, "model": kind(folder), "folder": folder, "texts": TEXTS, "np": np, "torch": library}
        for kind, library in ((SentenceEncoder, None), (theirs, torch))
    ]


@pytest.mark.parametrize("idiom", IDIOMS)
def test_what_their_users_type(names, idiom, tmp_path):
    ours, theirs = ({**n, "saved": str(tmp_path / str(i))} for i, n in enumerate(names))
    outcome = IDIOMS[idiom]
    if isinstance(outcome, str):
        with pytest.raises((ValueError, AttributeError), match=outcome) as caught:
            eval(idiom, ours)
        assert str(caught.value).count("\n") == 0
        return
    found = eval(idiom, ours)
    if isinstance(outcome, tuple):
        assert found.shape == outcome
        return
    expected = eval(idiom, theirs)
    if isinstance(expected, (str, int, type(None))):
        assert found == expected
    else:
        np.testing.assert_allclose(found, np.asarray(expected), atol=BOUND)
        assert np.asarray(found).dtype == np.float32


def words(function):
    """The names of a function's parameters, in their order."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]


def test_encode_has_their_words_in_their_order(sentence_transformers):
    theirs = words(sentence_transformers.SentenceTransformer.encode)
    assert words(SentenceEncoder.encode)[: len(theirs)] == theirs
    for name in ("encode_query", "encode_document"):  # the first ones; the rest is handed on to encode
        assert words(getattr(sentence_transformers.SentenceTransformer, name)) == theirs
        assert words(getattr(SentenceEncoder, name))[:3] == theirs[:3]


def test_other_functions_have_their_words_in_their_order(sentence_transformers):
    theirs = sentence_transformers.SentenceTransformer
    for name in ("save_pretrained", "similarity", "similarity_pairwise"):
        expected = words(getattr(theirs, name))
        assert words(getattr(SentenceEncoder, name))[: len(expected)] == expected
    for name in similarity.__all__:
        if hasattr(sentence_transformers.util, name):
            assert words(getattr(similarity, name)) == words(getattr(sentence_transformers.util, name))


def test_the_cosine_of_a_zero_vector_is_theirs(sentence_transformers):
    a = np.array([[0.0, 0.0], [3.0, 4.0]], np.float32)
    for name in ("cos_sim", "pairwise_cos_sim"):
        expected = getattr(sentence_transformers.util, name)(a, a).numpy()
        np.testing.assert_allclose(getattr(similarity, name)(a, a), expected, atol=BOUND)
