"""The map as a web page: it lets no other script run, and in a browser it shows, searches, zooms and goes by keys."""

import html
import html.parser
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisbert.analysis import write_map_page
from minisbert.analysis.clusters import Groups
from minisbert.analysis.maps import TEMPLATE, Projection, style
from minisbert.html_page import json_for_html

HOSTILE = [
    "</script><script>document.title = 'hacked'</script>",
    "<!-- <script>",
    "{{data}} {{policy}} {{title}}",
    "\u2028 \u2029 & &lt; \" ' \\ \x00",
    "<img src=x onerror=\"document.title = 'hacked'\">",
]


def page_of(points, texts, groups=None, **options):
    stream = io.BytesIO()
    points = np.asarray(points, float)
    write_map_page(stream, Projection(points, "pca", (0.5, 0.25), 0.9, 5, len(points)), texts, groups, **options)
    return stream.getvalue().decode()


class Page(html.parser.HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.inside, self.opened = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.opened.append(dict(attributes).get("id") or tag)

    def handle_data(self, data):
        if self.opened:
            self.inside[self.opened[-1]] = self.inside.get(self.opened[-1], "") + data


def test_hostile_texts_come_back_letter_by_letter_and_make_no_element():
    points, groups = np.eye(len(HOSTILE))[:, :2], Groups(np.arange(len(HOSTILE)), HOSTILE, "label")
    plain = Page(page_of(points, ["soup"] * len(HOSTILE)))
    for text in HOSTILE:
        page = page_of(points, HOSTILE, groups, title=text, caption=text)
        found = Page(page)
        data = json.loads(found.inside["data"])
        assert found.elements == plain.elements and found.inside["script"] == plain.inside["script"]
        assert data["texts"] == data["names"] == HOSTILE and data["title"] == data["captions"][0] == text
        assert f"<title>{html.escape(text)}</title>" in page


def test_the_script_has_no_way_to_make_elements_of_texts_or_to_fetch():
    """That its policy lets it run and nothing else, `test_page` asks of what puts both pages together."""
    script = TEMPLATE.read_text(encoding="utf-8")
    assert re.findall(r"\{\{\w+\}\}", script) == ["{{policy}}", "{{title}}", "{{data}}"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|fetch\(", script)
    assert set(re.findall(r"https?://[^\"' ]+", script)) <= {"http://www.w3.org/2000/svg"}  # a name


def test_what_the_script_draws():
    points, texts = [[10.0, 0.0], [30.0, 0.0], [20.0, 5.0], [10.0, 10.0]], ["soup", "cat", "half \ud83d", "dog"]
    groups = Groups([0, 1, 0, -1], ["a", "b"], "cluster")
    data = json.loads(Page(page_of(points, texts, groups, typical=[2, 1])).inside["data"])
    assert data["points"] == [[-1, -0.5], [1, -0.5], [0, 0], [-1, 0.5]] and data["half"] == [1, 0.5]
    assert data["texts"] == texts and data["ids"] == [0, 1, 0, -1] and data["kind"] == "cluster"
    assert data["styles"] == [list(style(0)), list(style(1))] and data["typical"] == [2, 1]
    assert data["middles"][1] == [1, -0.5] and data["middles"][0] in data["points"]
    one = json.loads(Page(page_of([[7, 7]], ["alone"])).inside["data"])
    assert one["points"] == [[0, 0]] and min(one["half"]) > 0


@settings(max_examples=30)
@given(st.recursive(st.text() | st.integers() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_json_for_html_is_json_without_a_way_out(value):
    written = json_for_html(value)
    assert not set("<>&\u2028\u2029") & set(written) and json.loads(written.encode()) == value


# ------------------------------------------------------------------------------------------------ in a browser

TEXTS = ["hot soup", "cold soup", "a cat", "a dog", *HOSTILE]
POINTS = [[-1, -1], [-1, 1], [1, 1], [1, -1], *([0.2 * i - 0.4, 0.0] for i in range(len(HOSTILE)))]
PATIENCE = 120_000  # milliseconds; the machine may be busy


@pytest.fixture(params=[(1440, 900, "light"), (390, 844, "dark")], ids=["desktop", "phone"])
def shown(browser, request, tmp_path):
    """The page in a browser without a network, and what went wrong in it."""
    width, height, scheme = request.param
    file = tmp_path / "map.html"
    groups = Groups([0, 0, 1, 1, *[2] * len(HOSTILE)], ["soup", "animal", HOSTILE[0]], "label")
    file.write_text(page_of(POINTS, TEXTS, groups, title="menu", caption=HOSTILE[0]), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
    page, wrong, asked = context.new_page(), [], []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri(), timeout=PATIENCE)
    page.wait_for_function("document.getElementById('map').width > 300")  # it has been drawn
    yield page
    assert wrong == [] and asked == [file.as_uri()] and page.title() == "menu"
    context.close()


def place_of(page, row):
    """Where a point is on the screen before anything moves."""
    box, half = page.locator("#map").bounding_box(), np.abs(POINTS).max(axis=0)
    scale = 0.9 * min(box["width"] / (2 * half[0]), box["height"] / (2 * half[1]))
    return box["x"] + box["width"] / 2 + scale * POINTS[row][0], box["y"] + box["height"] / 2 - scale * POINTS[row][1]


def drawn(page):
    """The canvas once all that was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate("document.getElementById('map').toDataURL()")


def test_hover_shows_a_text_and_a_click_keeps_it(shown):
    tip = shown.locator("#tip")
    for row in (2, 4, 8):
        shown.mouse.move(*place_of(shown, row))
        tip.get_by_text(f"text {row + 1}").wait_for()
        assert tip.evaluate("tip => tip.firstChild.data") == TEXTS[row]
    shown.mouse.click(*place_of(shown, 0))
    shown.locator("#chosen", has_text="hot soup").wait_for()
    shown.mouse.move(5, 5)
    tip.wait_for(state="hidden")


def test_search_finds_and_highlights(shown):
    before = drawn(shown)
    shown.locator("#search").fill("SOUP")
    shown.locator("#found", has_text=f"2 of {len(TEXTS)} texts").wait_for()
    assert shown.locator("#matches li").all_inner_texts() == ["hot soup", "cold soup"] and drawn(shown) != before
    shown.locator("#matches button").nth(1).click()
    shown.locator("#chosen", has_text="cold soup").wait_for()
    shown.locator("#search").fill("</script>")
    shown.locator("#found", has_text=f"1 of {len(TEXTS)} texts").wait_for()


def test_zoom_keeps_what_is_under_the_mouse(shown):
    before = drawn(shown)
    shown.mouse.move(*place_of(shown, 2))
    shown.locator("#tip", has_text="a cat").wait_for()
    for _ in range(4):
        last = drawn(shown)
        shown.mouse.wheel(0, -100)
        shown.wait_for_function("last => document.getElementById('map').toDataURL() !== last", arg=last)
    x, y = place_of(shown, 2)
    shown.mouse.move(x + 1, y)
    shown.locator("#tip", has_text="a cat").wait_for()  # while the others have moved away
    shown.mouse.move(*place_of(shown, 3))
    shown.locator("#tip").wait_for(state="hidden")
    shown.locator("#map").focus()
    shown.keyboard.press("0")
    shown.mouse.move(5, 5)
    shown.locator("#search").focus()
    assert drawn(shown) == before


def test_everything_can_be_reached_by_keys(shown):
    for _ in range(2):
        shown.keyboard.press("Tab")
        if shown.evaluate("document.activeElement.id") == "map":
            break
    assert shown.evaluate("document.activeElement.id") == "map"
    way = {"ArrowUp": "cold soup", "ArrowRight": "a cat", "ArrowDown": "a dog"}
    shown.keyboard.press("ArrowRight")  # the first point
    for key, text in way.items():
        shown.keyboard.press(key)
        shown.locator("#chosen", has_text=text).wait_for()
    shown.keyboard.press("Enter")
    pressed = shown.locator("#legend button[aria-pressed=true]")
    pressed.wait_for()
    assert pressed.inner_text() == "animal (2)"
    shown.keyboard.press("ArrowLeft")  # no other point of this group is there
    assert "a dog" in shown.locator("#chosen").inner_text()
    shown.keyboard.press("Escape")
    pressed.wait_for(state="detached")
    zoomed = drawn(shown)
    shown.keyboard.press("+")
    assert drawn(shown) != zoomed
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.id") == "search"
