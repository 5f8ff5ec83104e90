"""The page that shows how two texts become one number: its numbers are the model's, and every way through it works."""

import base64
import hashlib
import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import port
import pytest
from test_map_page import HOSTILE, PATIENCE, Page
from tiny import TINY, tiny_dense, tiny_params, write_model

from minisbert import SentenceEncoder, show
from minisbert.model import config as model_config
from minisbert.model.ops import ACTIVATIONS
from minisbert.model.params import BertParams
from minisbert.model.pooling import Normalize, Pooling
from minisbert.page import PADDED, page_of
from minisbert.proof.ledger import trace_tensors

TEXTS = ["the cat sat on the mat", "unable soup"]  # 8 and 5 tokens
SAME_LENGTH = ["i love soup", "the cat ran"]
LONGEST = "a b c d e f g h i j k l m n"  # as many tokens as a tiny model reads
SCENES = range(1, 11)
PICTURE = Path(__file__).resolve().parent.parent / "notebooks" / "pictures" / "page.png"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """An encoder of a tiny model."""

    def made(activation="gelu", dtype="float32", **choices):
        # "identity" and "sigmoid" are not BERT's, but the page knows all functions that the package knows
        monkeypatch.setitem(model_config.HIDDEN_ACTS, activation, activation)
        config = replace(TINY, hidden_act=activation)
        return SentenceEncoder(write_model(tmp_path / "tiny-model", config=config, **choices), dtype=dtype)

    return made


def data_of(page):
    return json.loads(Page(page.html).inside["data"])


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# -------------------------------------------------------------------------------------------- the page as it is written


def test_the_policy_lets_the_pages_own_scripts_and_styles_run_and_nothing_be_fetched(tiny):
    page = show(tiny(), *TEXTS).html
    (policy,) = (a["content"] for _, a in Page(page).elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and set(rules) >= {"base-uri", "form-action"}
    for name in ("script", "style"):
        inside = re.findall(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inside]
        assert rules[f"{name}-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    found = Page(page)
    assert not {name for _, a in found.elements for name in a} & {"src", "href", "style", "onclick", "onload"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|fetch\(", page)


STRANGE = [
    *HOSTILE,
    "שלום world مرحبا",
    "\U0001f372 soup \U0001f469\u200d\U0001f373",
    "",
    "a" * 10_000,
    "x",
    "the cat\r\nthe dog\r\n",
    "\u202e reversed \u2066 and not closed",
    "constructor __proto__ toString",
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_strange_texts_make_no_element_and_pairs_add_up_to_their_cosine(tiny, dtype):
    encoder = tiny(dtype=dtype)
    plain = Page(show(encoder, *TEXTS).html)
    for text, other in [*zip(STRANGE, [*STRANGE[1:], STRANGE[0]], strict=True), SAME_LENGTH, ["", ""], [LONGEST, "x"]]:
        page = show(encoder, text, other, overflow="truncate")
        data = data_of(page)
        assert Page(page.html).elements == plain.elements and data["texts"] == [text, other]
        assert page.html.isprintable() or not set("\u2028\u2029\ud83d") & set(page.html)
        assert np.shape(data["pairs"]) == tuple(map(len, data["pieces"]))
        assert abs(np.sum(data["pairs"]) - data["cosine"]) <= 1e-6 and data["cosine"] == page.cosine


def test_two_sentences_of_16_tokens_are_at_most_2_000_000_bytes(weights_folder):
    page = show(
        SentenceEncoder(weights_folder),
        "the quick brown fox jumps over the lazy dog while it looks for soup",
        "a good soup needs time, a warm kitchen and someone who will eat it",
    )
    assert [len(pieces) for pieces in data_of(page)["pieces"]] == [16, 17]
    assert len(page.html.encode()) <= 2_000_000


def huge() -> BertParams:
    params = tiny_params()
    return replace(params, embeddings=replace(params.embeddings, word=params.embeddings.word * 3e5))


@pytest.mark.parametrize(
    ("texts", "choices", "says"),
    [(["one"], {}, "two texts, got 1"), (["a", "b", "c"], {}, "got 3"), (TEXTS, {"params": huge()}, "65,504")],
    ids=["one text", "three texts", "numbers beyond float16"],
)
def test_refusals(tiny, texts, choices, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        page_of(tiny(**choices).trace(texts))


SWITCHED = {  # what each switch is in a port that was written apart
    "no √K": [(port.SCALE, "")],
    "tanh GELU": [(port.GELU, port.TANH)],
    "LayerNorm first": port.PRE_LN,
    "last layer off": [("range(L)", "range(L - 1)")],
    "[CLS], not the mean": [(port.MEAN, "x[:, 0]")],
    "padding in the mean": [(port.MEAN, "x.mean(1)")],
    "no [SEP]": [],
}


def holds_its_switches(encoder, texts, bound):
    trace = encoder.trace(texts)
    data = data_of(page_of(trace))
    model, ids = encoder.model, np.split(trace.token_ids, [trace.lengths[0]])
    length = min(max(trace.lengths) + PADDED, model.config.max_position_embeddings)
    expected = {}
    for label, edits in SWITCHED.items():
        tokens = [one[:-1] for one in ids] if label == "no [SEP]" else ids
        expected[label] = cosine(*port.port_of(model, tokens, *edits, length=length)["sentence_embedding"])
    found = {one["label"]: one["cosine"] for one in data["switches"]}
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=bound)
    moved = {one["label"]: one["moved"] for one in data["switches"]}
    last, vectors = f"layers.{model.config.num_hidden_layers - 1}.", {"modules.0", "sentence_embedding"}
    names = set(data["madeBy"]) - {"token_ids"}
    assert all(set(of) == names for of in moved.values())
    assert {name for name, far in moved["last layer off"].items() if far is None} == {
        name for name in names if name.startswith(last)
    }
    assert {name for name, far in moved["[CLS], not the mean"].items() if max(far) > 1e-6} == vectors
    return expected


def test_each_switch_gives_the_cosine_that_a_port_with_the_mistake_gives(tiny, weights_folder):
    holds_its_switches(SentenceEncoder(weights_folder), ["i love soup", "soup is my favorite"], 2e-6)
    encoder = tiny(dtype="float64")
    for texts in (TEXTS, SAME_LENGTH, [LONGEST, "soup"], [LONGEST, LONGEST[::-1]]):
        expected = holds_its_switches(encoder, texts, 1e-12)
    assert len(set(expected.values())) == len(expected) > 6


# ------------------------------------------------------------------------------------------------------- in a browser


@contextmanager
def opened(browser, file, size=(1440, 900), scheme="light", before=None):
    """A page in a browser without a network; nothing goes wrong in it, and nothing is asked for but the file."""
    viewport = dict(zip(("width", "height"), size, strict=True))
    context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce", offline=True)
    page, wrong, asked = context.new_page(), [], []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    if before:
        page.add_init_script(before)
    page.goto(file.as_uri(), timeout=PATIENCE)
    if not before:
        page.wait_for_selector("html[data-ready]")
    yield page
    assert wrong == [] and {url.split("#")[0] for url in asked} == {file.as_uri()}
    context.close()


@pytest.fixture
def at(browser, tmp_path):
    """Open a page by its HTML."""

    def opens(html, **options):
        file = tmp_path / "page.html"
        file.write_text(html, encoding="utf-8", newline="")
        return opened(browser, file, **options)

    return opens


@pytest.fixture(scope="module", params=["desktop", "phone"])
def shown(request, browser, tmp_path_factory):
    """The real model's page on a desktop in the light, a tiny one's on a phone in the dark: trace, page."""
    folder, texts = tmp_path_factory.mktemp("page"), TEXTS
    if request.param == "desktop":
        model, texts = request.getfixturevalue("weights_folder"), ["i love soup", "soup is my favorite"]
        look = {}
    else:
        model, look = write_model(folder / "tiny-model"), {"size": (390, 844), "scheme": "dark"}
    trace = SentenceEncoder(model).trace(texts)
    page_of(trace).save(folder / "page.html")
    with opened(browser, folder / "page.html", **look) as page:
        yield trace, page


def expected(trace, text):
    """A text's tensors by the names that the page gives them, as rows and columns."""
    ends = np.cumsum([0, *trace.lengths])
    found, together = {}, trace.lengths[0] == trace.lengths[1]
    for name, x in trace_tensors(trace).items():
        if "probs." in name:
            if together or name.endswith(str(text)):
                found[name[:-2]] = x[text if together else 0].reshape(-1, trace.lengths[text])
        elif name.startswith(("modules", "sentence")):
            found[name] = x[text : text + 1]
        elif name != "token_ids":
            found[name] = x[ends[text] : ends[text + 1]]
    return found


READ = """async () => {
  window.found = await numbers.read(JSON.parse(document.getElementById("data").textContent));
  return JSON.stringify(found.texts.map((tensors) => [...tensors.values()].map((t) =>
    [t.name, t.rows, t.columns, Array.from(t.data), Array.from(t.data, t.error)])));
}"""
OPEN = """(sample) => {
  const data = JSON.parse(document.getElementById("data").textContent);
  return sample.map(([name, text, i, j]) => {
    const { value, kept, bound, instead, math } =
      cells.open({ data, weights: found.weights, tensors: found.texts[text], text }, name, i, j);
    return { value, kept, bound, instead, math };
  });
}"""


def holds_its_numbers(page, trace, rng, without=()):
    """All tensors of both texts, and the arithmetic of a sample of each but those without."""
    sample, all_right = [], [expected(trace, text) for text in (0, 1)]
    for text, tensors in enumerate(json.loads(page.evaluate(READ))):
        right = all_right[text]
        assert [name for name, *_ in tensors] == list(right)
        for name, rows, columns, values, errors in tensors:
            assert (rows, columns) == right[name].shape
            x, values, errors = right[name].astype(float).ravel(), np.array(values), np.array(errors)
            assert (np.abs(values - x) <= errors + 1e-9).all(), name
            assert errors.max() <= 0.005 * np.abs(x).max(), name  # at most half a per cent of the largest
            for at in rng.permutation(x.size)[: 4 if rows > 1 else None].tolist():
                sample.append((name, text, *divmod(at, columns)))
    found = page.evaluate(OPEN, sample)
    again = [(*at[:3], one["instead"]) for at, one in zip(sample, found, strict=True) if one.get("instead") is not None]
    kinds = set()
    for (name, text, i, j), one in zip([*sample, *again], [*found, *page.evaluate(OPEN, again)], strict=True):
        x = all_right[text][name]
        size = float(np.abs(x).max())
        assert abs(one["kept"] - x[i, j]) <= 0.005 * size
        if one.get("value") is None:
            continue
        kinds.add(name.split(".")[-1])
        assert abs(one["value"] - one["kept"]) <= one["bound"], (name, text, i, j)
        assert one["bound"] <= 0.02 * size, (name, text, i, j)
    assert {name.split(".")[-1] for name in all_right[0]} - kinds <= {"word", "position", *without}


def test_every_tensor_is_the_models_and_every_kind_of_cell_opens_to_what_made_it(shown):
    trace, page = shown
    holds_its_numbers(page, trace, np.random.default_rng(0))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_function_and_texts_of_one_length(at, tiny, activation):
    trace = tiny(activation).trace(SAME_LENGTH)
    labels = {one["label"] for one in data_of(page_of(trace))["switches"]}
    assert ("tanh GELU" in labels) == (activation == "gelu")
    with at(trace.to_html()) as page:
        holds_its_numbers(page, trace, np.random.default_rng(1))


ALL = """(open) => document.querySelectorAll("main details").forEach((box) => { box.open = open; })"""


def test_numbers_in_the_page_are_the_models(shown):
    trace, page = shown
    config, rng = trace.encoder.model.config, np.random.default_rng(2)
    tensors = [expected(trace, text) for text in (0, 1)]
    page.evaluate(ALL, True)
    for text in (0, 1, 0, 1):
        spot = {
            "text": text,
            "token": rng.integers(trace.lengths[text]),
            "to": rng.integers(trace.lengths[text]),
            "layer": rng.integers(config.num_hidden_layers),
            "head": rng.integers(config.num_attention_heads),
            "column": rng.integers(config.hidden_size),
            "wide": rng.integers(config.intermediate_size),
            "scene": 3,
        }
        page.evaluate("hash => { location.hash = hash; }", "&".join(f"{key}={value}" for key, value in spot.items()))
        page.wait_for_selector(f'#token:has(option[value="{text},{spot["token"]}"]:checked)', state="attached")
        cells = page.evaluate("""[...document.querySelectorAll("[data-at]")].map((cell) => ({
            at: JSON.parse(cell.dataset.at), scene: Number(cell.closest(".scene").id.slice(6)),
            read: Number(cell.previousElementSibling.querySelector("data").value),
            verdict: cell.querySelector(".verdict b")?.textContent,
            values: [...cell.querySelectorAll(".verdict data")].map((one) => Number(one.value)) }))""")
        assert {cell["scene"] for cell in cells} == set(range(3, 10))
        for cell in cells:
            name, which, row, column = cell["at"]
            x = tensors[which][name]
            near = 0.005 * float(np.abs(x).max())
            assert cell["read"] == pytest.approx(x[row, column], abs=near)
            if cell["values"]:
                assert cell["values"][1] == cell["read"] and cell["verdict"] == "they agree"
            own = {"token": row % trace.lengths[which] if "probs" in name else row}
            if which == text and x.shape[0] > 1:
                assert own["token"] == spot["token"]
            if "probs" in name and which == text:
                assert (row // trace.lengths[which], column) == (spot["head"], spot["to"])
            if name.startswith("layers") and int(name.split(".")[1]) != spot["layer"]:
                assert cell["scene"] == 9  # which has the last layer's output
    assert page.evaluate("document.querySelectorAll('.verdict .bad').length") == 0


def test_the_cosine_opens_again(shown):
    trace, page = shown
    right = cosine(*trace.sentence_embedding.astype(float))
    everything, given_cosine = page.evaluate(
        "[...document.querySelectorAll('#pair-sum data')].map(x => Number(x.value))"
    )
    assert abs(everything - given_cosine) <= 1e-6 and abs(given_cosine - right) <= 1e-6
    ends = np.cumsum(trace.lengths)
    a, b = (x.astype(float) for x in np.split(trace.bert.output, [ends[0]]))
    pairs = a @ b.T / np.linalg.norm(a.sum(0)) / np.linalg.norm(b.sum(0))
    page.evaluate(READ)
    opened_again = page.evaluate("""async () => {
      const name = [...found.texts[0].keys()].filter((name) => name.startsWith("layers")).pop();
      const [a, b] = found.texts.map((tensors) => tensors.get(name));
      return Array.from({ length: a.rows }, (_, i) =>
        Array.from({ length: b.rows }, (_, j) => cells.pair([a, b], i, j).value));
    }""")
    assert np.abs(np.array(opened_again) - pairs).max() <= 1e-6 and abs(np.sum(opened_again) - right) <= 1e-6
    page.evaluate(ALL, False)
    page.locator("#strongest button").first.click()
    cell = page.locator("#pair-figure .cell")
    cell.locator(".verdict b", has_text="they agree").first.wait_for()
    starts = [
        [i for i, piece in enumerate(own) if not piece.startswith("##")]
        for own in (trace.pieces[: ends[0]], trace.pieces[ends[0] :])
    ]
    words = np.add.reduceat(np.add.reduceat(pairs, starts[0], 0), starts[1], 1)
    largest = words.flat[np.abs(words).argmax()]
    assert f"contribute {100 * largest:.2f} hundredths" in cell.locator("summary").inner_text().replace("−", "-")
    verdicts = cell.locator(".verdict data:first-child").evaluate_all("all => all.map((one) => Number(one.value))")
    assert abs(sum(verdicts) - largest) <= 1e-6
    page.locator("#dimensions .cell > summary").click()
    page.locator("#dimensions .verdict b", has_text="they agree").wait_for()


def test_each_switch_shows_its_cosine_and_reset_leads_back(shown):
    _, page = shown
    data = json.loads(page.locator("#data").text_content())
    number = page.locator("#number data")
    for i, switch in enumerate(data["switches"]):
        page.get_by_label(switch["label"], exact=True).check()
        assert float(number.get_attribute("value")) == switch["cosine"]
        assert f"not {data['cosine']:.4f}" in page.locator("#was").inner_text()
        assert switch["says"] in page.locator("#broken").inner_text()
        assert f"switch={i}" in page.url
        if i % 2:
            page.get_by_role("button", name="reset").click()
        else:
            page.get_by_label("as proven").check()
        assert float(number.get_attribute("value")) == data["cosine"] and page.locator("#broken").is_hidden()


def focused(page, what):
    """Whether what has the keyboard matches a selector."""
    return page.evaluate("what => document.activeElement.matches(what)", what)


def test_the_keyboard_alone_reaches_every_scene_and_opens_the_arithmetic(shown):
    _, page = shown
    page.evaluate(ALL, False)
    page.locator("#reset").evaluate("() => { document.activeElement.blur(); location.hash = '#scene=0'; }")
    reached = []
    for _ in range(100):
        page.keyboard.press("Tab")
        if focused(page, ".scene > summary"):
            reached.append(page.evaluate("document.activeElement.parentElement.id"))
            page.keyboard.press("Enter")
            page.wait_for_selector(f"#{reached[-1]}[open]")
            page.keyboard.press("Enter")
            page.wait_for_selector(f"#{reached[-1]}:not([open])", state="attached")
            if len(reached) == len(SCENES):
                break
    assert reached == [f"scene-{n}" for n in SCENES]
    for n in SCENES:
        page.keyboard.press(str(n % 10))
        page.wait_for_selector(f"#scene-{n}[open]")
        assert focused(page, f"#scene-{n} > summary")
        page.keyboard.press("Escape")
        page.wait_for_selector(f"#scene-{n}:not([open])", state="attached")
    page.keyboard.press("3")
    page.keyboard.press("Tab")
    assert focused(page, "#scene-3 figure canvas")
    before = int(page.locator("#column").input_value())
    page.keyboard.press("ArrowLeft" if before else "ArrowRight")
    after = int(page.locator("#column").input_value())
    assert abs(after - before) == 1
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert int(page.locator("#column").input_value()) == 0
    page.wait_for_selector("#scene-3 figure .cell[open] .scroll")


def test_addresses_lead_to_what_they_name_and_nonsense_does_no_harm(shown, browser):
    _, page = shown
    url = page.url.split("#")[0]
    data = json.loads(page.locator("#data").text_content())
    layer, head = min(3, data["model"]["L"] - 1), 1
    page.evaluate(ALL, False)

    def state():
        found = [page.locator(f"#{control}").input_value() for control in ("layer", "head")]
        return [*map(int, found)], page.evaluate("[...document.querySelectorAll('.scene[open]')].map(box => box.id)")

    for address in (f"layer={layer}&head={head}", f"scene=5&layer={layer}&head={head}"):
        page.goto("about:blank")
        page.goto(f"{url}#{address}")
        page.wait_for_selector("html[data-ready]")
        page.wait_for_selector("#scene-5[open]")
        assert state() == ([layer, head], ["scene-5"])
    for address in (
        "layer=99&head=-1",
        "scene=11",
        "layer=NaN",
        "%F0%9F",
        "zoom=7&token=1e9&text=2",
        "a=b&&==&__proto__=1",
        "layer=",
    ):
        page.goto("about:blank")
        page.goto(f"{url}#{address}")
        page.wait_for_selector("html[data-ready]")
        assert state()[0] == [0, 0]
        page.keyboard.press("0")
        page.wait_for_selector("#scene-10[open]")


def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(shown, axe):
    _, page = shown
    page.evaluate(ALL, True)
    page.get_by_label("no √K").check()
    page.evaluate(axe)
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    assert found["passes"]
    assert [
        (one["id"], one["nodes"][0]["html"][:200])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ] == []
    page.get_by_label("as proven").check()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_paper_shows_all_scenes(shown):
    _, page = shown
    page.evaluate(ALL, False)
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".scene[open], .answer[open]").count() == 2 * len(SCENES)
    assert page.locator("#bar").is_hidden()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator(".scene[open]").count() == 0
    page.emulate_media(media="screen")


def test_strange_texts_in_a_browser(at, tiny):
    encoder = tiny()
    for a, b in (("".join(HOSTILE), " ".join(STRANGE[5:])), (STRANGE[5], STRANGE[-2]), ("", STRANGE[-1])):
        with at(show(encoder, a, b, overflow="truncate").html, size=(390, 844)) as page:
            page.evaluate(ALL, True)
            assert page.evaluate("[...document.querySelectorAll('blockquote span')].map(x => x.textContent)") == [a, b]
            assert page.evaluate("document.scripts.length") == 9 and page.evaluate("document.images.length") == 0
            assert page.title() == "Two sentences become one number"
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert page.evaluate("document.querySelectorAll('.verdict .bad').length") == 0


@pytest.mark.parametrize(
    ("modules", "why", "without"),
    [
        ((Pooling(("cls",)), Normalize()), "expected mean pooling, got cls", ["0"]),
        ((Pooling(), tiny_dense(12, 7), Normalize()), "Dense", ["1"]),
        ((Pooling(("cls", "mean")), tiny_dense(24, 7)), "got cls + mean", ["0", "sentence_embedding"]),
    ],
    ids=["cls", "dense", "two poolings and dense"],
)
def test_without_a_sum_over_pairs_the_page_says_why(at, tiny, modules, why, without):
    trace = tiny(modules=modules).trace(TEXTS)
    labels = {one["label"] for one in data_of(page_of(trace))["switches"]}
    assert ("padding in the mean" in labels) == ("[CLS], not the mean" in labels) == (modules[0] == Pooling())
    with at(trace.to_html()) as page:
        holds_its_numbers(page, trace, np.random.default_rng(3), without)
        page.evaluate(ALL, True)
        assert why in page.locator("#no-pairs").inner_text()
        assert page.locator("#pairs").is_hidden() and page.locator("#strongest").is_hidden()
        assert "mean" not in page.locator("#scene-10 > summary").inner_text()


def test_in_a_notebook_the_page_works_in_its_frame(at, tiny):
    frame = f"<!DOCTYPE html><title>notebook</title>{show(tiny(), *TEXTS)._repr_html_()}"
    assert 'sandbox="allow-scripts"' in frame
    with at(frame, before="0;") as page:
        inside = page.frame_locator("iframe")
        inside.locator("html[data-ready]").wait_for()
        inside.locator("#scene-5 > summary").click()
        inside.locator("#scene-5[open] #heads button").nth(1).click()
        assert inside.locator("#head").input_value() == "1" and "#" not in page.url
        inside.get_by_label("no √K").check()
        inside.get_by_role("button", name="reset").click()


def test_an_old_browser_is_told(at, tiny):
    with at(show(tiny(), *TEXTS).html, before="delete window.DecompressionStream;") as page:
        said = page.locator("body").inner_text()
        assert "2023" in said and all(text in said for text in TEXTS) and "Their cosine is 0." in said


if __name__ == "__main__":  # draws it anew
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = opened.new_page(viewport={"width": 1000, "height": 1240})
        tab.set_content(show(SentenceEncoder(), "i love soup", "soup is my favorite").html)
        tab.locator("html[data-ready]").wait_for()
        tab.screenshot(path=PICTURE)
        opened.close()
