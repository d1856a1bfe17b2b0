"Pages in a real browser: they sort, filter, open and link, and are complete without their script"

import json
from xml.etree import ElementTree

import pytest
from browser import CHROMIUM, Browser

from toolcall.chatml import parse_calls, view_tokens
from toolcall.chatml.views import SideBySide
from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.evaluate import evaluate
from toolcall.pages import Page, Table
from toolcall.report import Report, last_messages
from toolcall.report.files import load_report, save_report
from toolcall.report.transcripts import Transcript
from toolcall.turn import Example, Output

NEEDED = pytest.mark.skipif(not CHROMIUM, reason="no Chromium; apt-get install -y chromium")
HOSTILE = [
    "</script><script>document.title = 'run'</script>",
    "\" onfocus=document.title='run' autofocus tabindex=0 x=\"",
    "'><img src=x onerror=document.title='run'>",
    "javascript:document.title='run'",
    "</title></style></details><svg onload=document.title='run'>",
    "\u202e\u2066gnp.exe\x00\x1b[2J\x07 \ud7ff \u2028",
    "${document.title='run'} {{ 7 * 7 }} &lt;b&gt; <!--",
    "\"]' <option>",
]
ENDINGS = ["weather", "sights"]


def make_turn(number: int) -> Example:
    "Every name, id and text is hostile"
    text = HOSTILE[number % len(HOSTILE)]
    tool = f"{text} {ENDINGS[number % 2]}"
    call = ToolCall(tool, {text: text, "city": "Rome"})
    messages = [
        {"role": "user", "content": f"{text} question {number}"},
        {"role": "assistant", "content": "", "tool_calls": [call.to_message()]},
    ]
    tools = [make_tool(tool)]
    return Example([1] * 9, [2], Conversation(f"{text} {number}", messages, tools), 1)


def call_text(call: ToolCall) -> str:
    body = json.dumps({"name": call.name, "arguments": call.arguments})
    return f"<tool_call>\n{body}\n</tool_call>"


@pytest.fixture(scope="module")
def report():
    turns = [make_turn(number) for number in range(24)]
    good = [call_text(turn.calls[0]) for turn in turns]
    bad = [call_text(ToolCall(turn.calls[0].name, {"city": "Oslo"})) for turn in turns]
    bad[:6] = [f"{turn.conversation.id}, in words" for turn in turns[:6]]
    outputs = {"good": good, "bad": [*bad[:18], *good[18:]]}
    scores = {
        name: evaluate(turns, [Output(t, True, 1, 1, 0.1) for t in texts], parse=parse_calls)
        for name, texts in outputs.items()
    }
    said = {
        (turn.conversation.id, 1): Transcript(
            [(m["role"], m["content"]) for m in turn.conversation.messages[:1]],
            2,
            str(turn.calls[0]),
            [("context", "assistant\n"), ("name", turn.calls[0].name), ("stop", "<|im_end|>")],
        )
        for turn in turns
    }
    settings = {"model": HOSTILE[0]}
    return Report(
        scores["good"],
        scores["bad"],
        last_messages(turns),
        settings,
        columns={HOSTILE[1]: scores["good"]},
        transcripts=said,
    )


@pytest.fixture(scope="module")
def saved(report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    save_report(report, folder)
    table = Table(
        "Numbers",
        ("tool", "exact", "calls"),
        [
            ("b", "9% [1%, 20%]", "1,200"),
            ("a", "71% [36%, 92%]", "7"),
            ("c", "–", "35"),
            ("a10", "100% [80%, 100%]", "1e-9"),
            ("a9", "9.5% [1%, 20%]", "-2"),
        ],
    )
    page = Page("Tables", "Lead.", [table, Table("Wide", "abcdefghij", [["x" * 40] * 10] * 2)])
    (folder / "tables.html").write_text(page.to_html(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


def shown(browser) -> int:
    return browser.run("[...document.querySelectorAll('.case')].filter(c => !c.hidden).length")


def column(browser, number: int) -> list[str]:
    rows = "[...document.querySelector('tbody').rows]"
    return browser.run(f"{rows}.map(row => row.cells[{number}].textContent)")


def test_a_report_keeps_its_transcripts(report, saved):
    again = load_report(saved)
    assert again.transcripts == report.transcripts and again.page.to_html() == report.page.to_html()


def test_a_report_of_many_failures_has_a_bound(report):
    long = "<&'\">" * 400
    talks = [Conversation(f"c{i}", [{"role": "user", "content": long}] * 20) for i in range(120)]
    turns = [
        Example(
            [1],
            [2],
            Conversation(talk.id, [*talk.messages, make_turn(1).conversation.messages[1]]),
            20,
        )
        for talk in talks
    ]
    right = [Output(call_text(turn.calls[0]), True, 1, 1, 0.1) for turn in turns]
    wrong = [Output(long, True, 1, 1, 0.1) for _ in turns]
    scores = [evaluate(turns, outputs, parse=parse_calls) for outputs in (right, wrong)]
    said = {
        (turn.conversation.id, 20): Transcript(
            [("user", long[:1_500])] * 12, 8, "due", [("text", "<>")] * 200
        )
        for turn in turns
    }
    many = Report(*scores, last_messages(turns), transcripts=said)
    page = many.page.to_html()
    assert page.count('class="case"') == 100 and "stay closed here" in page
    assert 1 <= page.count("<details>") < 100 and len(page) < 800_000


@NEEDED
@pytest.mark.parametrize("scripts", [True, False])
def test_hostile_content_stays_text(saved, browser, scripts):
    browser.open(saved / "report.html", scripts=scripts)
    assert browser.run("document.title") == "Tool-call report"
    assert browser.complaints() == [] and browser.requests() == []
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert (
        browser.run("document.querySelectorAll('.toolcall [onfocus], .toolcall img').length") == 0
    )
    text = browser.run("document.body.textContent")
    assert HOSTILE[0] in text and HOSTILE[3] in text and "\u202e" not in text
    links = browser.run("[...document.links].map(link => link.getAttribute('href'))")
    assert all(link.startswith("#turn-") for link in links) and len(set(links)) == len(links)
    assert browser.run("[...document.links].every(a => document.getElementById(a.hash.slice(1)))")


@NEEDED
def test_another_script_does_not_run(saved, browser, tmp_path):
    page = (saved / "report.html").read_text(encoding="utf-8")
    attack = page.replace("<h1>", "<script>document.title = 'run'</script><h1>", 1)
    attack = attack.replace("<h1>", "<img src=x onerror=\"document.title = 'run'\"><h1>", 1)
    (tmp_path / "attack.html").write_text(attack, encoding="utf-8")
    browser.open(tmp_path / "attack.html")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.run("document.title") == "Tool-call report"
    assert len(browser.complaints()) >= 2 and shown(browser) > 20, "the page's own script runs"


@NEEDED
def test_failures_are_filtered(saved, browser):
    browser.open(saved / "report.html")
    total = shown(browser)
    assert browser.run("document.querySelector('.filter output').textContent") == (
        f"{total} of {total} shown"
    )
    choose = "(i, v) => {{ const s = document.querySelectorAll('.filter select')[i]; s.value = v; \
s.dispatchEvent(new Event('input', {{bubbles: true}})); return s.selectedIndex }}"
    choose = choose.replace("{{", "{").replace("}}", "}")
    assert browser.run(f"({choose})(1, 'missing call')") > 0
    some = shown(browser)
    assert 0 < some < total
    name = json.dumps(f"{HOSTILE[0]} weather")
    assert browser.run(f"({choose})(0, {name})") > 0, "a hostile name is an option"
    assert 0 < shown(browser) < some
    browser.press("Escape")
    assert shown(browser) == total
    browser.press("/", *"QUESTION 13")
    assert 0 < shown(browser) < 4 and f"of {total} shown" in browser.run(
        "document.querySelector('.filter output').textContent"
    )
    browser.press("j")
    assert browser.run("document.querySelector('.filter input').value") == "QUESTION 13j"
    browser.press("Escape")
    assert shown(browser) == total and browser.complaints() == []
    bar = "document.querySelector('.filter').getBoundingClientRect().top"
    browser.run("[...document.querySelectorAll('.case')].at(-1).scrollIntoView()")
    assert browser.run(bar) == 0, "it stays in sight beside the cases"
    browser.run("scrollTo(0, document.body.scrollHeight)")
    assert browser.run(bar) < -50, "and not beside what it doesn't filter"


@NEEDED
def test_failures_are_walked_by_keys(saved, browser):
    browser.open(saved / "report.html")
    focused = "[...document.querySelectorAll('.case')].indexOf(document.activeElement)"
    browser.press("j", "j", "j", "k")
    assert browser.run(focused) == 1
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.press("Enter")
    assert browser.run("document.activeElement.querySelector('details').open")
    seen = browser.run("document.activeElement.getBoundingClientRect().top")
    assert 0 <= seen < 900
    browser.press("k", "k", "k")
    assert browser.run(focused) == 0
    assert "j and k" in browser.run("document.querySelector('.filter small').textContent")


@NEEDED
def test_a_link_opens_its_turn(saved, browser):
    browser.open(saved / "report.html")
    anchors = browser.run("[...document.querySelectorAll('.case')].map(one => one.id)")
    assert len(set(anchors)) == len(anchors)
    for scripts in (True, False):
        browser.open(saved / "report.html", f"#{anchors[15]}", scripts=scripts)
        one = f"document.getElementById('{anchors[15]}')"
        top = browser.run(f"{one}.getBoundingClientRect().top")
        assert 0 <= top < 900
        assert browser.run(f"{one}.querySelector('details').open") == scripts
    browser.open(saved / "report.html", "#turn-%E0%A4%A</script>")
    assert browser.complaints() == [] and shown(browser) == len(anchors)
    browser.press("/", "z", "q", "x")
    assert shown(browser) == 0
    browser.run(f"location.hash = '{anchors[3]}'")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.run("document.activeElement.id") == anchors[3] and shown(browser) == len(anchors)


@NEEDED
def test_tables_are_sorted_by_value(saved, browser):
    browser.open(saved / "tables.html")
    assert browser.run("document.querySelector('.filter')") is None
    logged = column(browser, 0)
    browser.run("document.querySelectorAll('th button')[1].click()")
    assert column(browser, 0) == ["b", "a9", "a", "a10", "c"], "a missing value is last"
    sorts = "[...document.querySelectorAll('th')].map(th => th.getAttribute('aria-sort'))"
    assert browser.run(sorts)[:3] == [None, "ascending", None]
    browser.run("document.querySelectorAll('th button')[1].focus()")
    browser.press("Enter")
    assert column(browser, 0) == ["a10", "a", "a9", "b", "c"]
    assert browser.run(sorts)[:3] == [None, "descending", None]
    browser.press(" ")
    assert column(browser, 0) == logged and browser.run(sorts)[:3] == [None, None, None]
    browser.run("document.querySelectorAll('th button')[2].click()")
    assert column(browser, 2) == ["-2", "1e-9", "7", "35", "1,200"]
    browser.run("document.querySelectorAll('th button')[0].click()")
    assert column(browser, 0) == ["a", "a9", "a10", "b", "c"]


@NEEDED
@pytest.mark.parametrize("name", ["report.html", "tables.html"])
def test_a_phone_scrolls_wide_tables_in_their_own_box(saved, browser, name):
    browser.open(saved / name, width=390)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    wide = "[...document.querySelectorAll('.wide')].some(one => one.scrollWidth > one.clientWidth)"
    assert browser.run(wide)


@NEEDED
@pytest.mark.parametrize("dark", [False, True])
def test_text_and_plots_take_the_colour_of_the_page(saved, browser, dark):
    browser.open(saved / "report.html", dark=dark)
    colours = browser.run(
        "['body', 'svg text', 'td', '.case'].map(one => {"
        "const style = getComputedStyle(document.querySelector(one));"
        "return one === 'svg text' ? style.fill : style.color})"
    )
    assert len(set(colours)) == 1
    assert (colours[0] == "rgb(255, 255, 255)") == dark
    paper = "[...document.querySelectorAll('svg')].map(s => getComputedStyle(s).backgroundColor)"
    assert set(browser.run(paper)) == {"rgba(0, 0, 0, 0)"}


@NEEDED
def test_without_scripts_everything_is_there(report, saved, browser):
    browser.open(saved / "report.html", scripts=False)
    assert browser.run("document.querySelector('.filter')") is None
    assert shown(browser) == browser.run("document.querySelectorAll('.case').length") > 20
    said = [text for one in report.transcripts.values() for _, text in one.messages]
    text = browser.run("document.body.textContent")
    assert sum("question" in one and one[-11:] in text for one in said) >= 18
    browser.run("document.querySelector('summary').click()")
    assert browser.run("document.querySelector('details').open")


@pytest.fixture(scope="module")
def views(smollm):
    text = " ".join(HOSTILE) + "\ud800 巴黎 e\u0301\n" * 40
    ids = smollm(text.encode("utf-8", "replace").decode())["input_ids"]
    long = Example(ids * 3, ids * 9, Conversation("c", [{"role": "user", "content": text}]), 0)
    view = view_tokens(smollm, long, title=HOSTILE[0])
    return {"one": view, "two": SideBySide([view, view])}


def test_every_viewer_of_a_notebook_shows_the_same(report, views):
    from IPython.core.formatters import DisplayFormatter

    table = Table(HOSTILE[0], ("a",), [(HOSTILE[1],)])
    talk = make_turn(1).conversation
    kinds = {
        "image/svg+xml": [*views.values()],
        "text/markdown": [table, report.base, report.page.parts[2]],
        "text/html": [talk, report, report.page],
    }
    for kind, objects in kinds.items():
        for one in objects:
            data, _ = DisplayFormatter().format(one)
            assert set(data) == {kind, "text/plain"}, type(one)
            assert "<script" not in data[kind] and "\u202e" not in data[kind], type(one)


def test_pictures_of_tokens_are_whole_and_small(views):
    for view in views.values():
        picture = view._repr_svg_()
        assert len(picture.encode()) < 30_000
        text = "".join(ElementTree.fromstring(picture).itertext()).replace("\u00a0", " ")
        assert "</script>" in text and "more pieces" in text


@NEEDED
@pytest.mark.parametrize("name", ["one", "two"])
def test_a_browser_draws_a_picture_of_tokens(views, browser, tmp_path, name):
    (tmp_path / "view.svg").write_text(views[name]._repr_svg_(), encoding="utf-8")
    (tmp_path / "page.html").write_text("<!doctype html><img src=view.svg>", encoding="utf-8")
    browser.open(tmp_path / "page.html")
    size = browser.run("[document.images[0].naturalWidth, document.images[0].naturalHeight]")
    assert size[0] == 715 and size[1] > 100 and browser.complaints() == []
    browser.open(tmp_path / "view.svg")
    outside = "[...document.querySelectorAll('text')].filter(t => t.getBBox().x + \
t.getBBox().width > 715).length"
    assert browser.run(outside) == 0
