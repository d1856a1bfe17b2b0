"Doubtful turns through the pipeline: configuration, files, counts, the page and `inspect`"

import gzip
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path

import pytest

import toolcall.curate.diagnosis
import toolcall.pipeline.config
from toolcall.conversation import Conversation, ToolCall
from toolcall.curate.chain import Curated, curate
from toolcall.curate.doubts_page import CleanReport, mask_doubtful
from toolcall.curate.findings import REASONS, Finding
from toolcall.curate.notes import LEFT_OUT
from toolcall.errors import ConfigError, ToolcallError
from toolcall.logs.log import read_logs
from toolcall.pipeline.commands import main
from toolcall.pipeline.config import load_config, make_config
from toolcall.pipeline.data import make_data, prepare
from toolcall.pipeline.inspecting import inspect
from toolcall.pipeline.outputs import check_paths
from toolcall.samples import sample_log
from toolcall.text import write_atomic

SECRET = "ann.lee@mail.test"
EVIL = "</bdi></td><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[31m`|*[a](b)"


def talk(name: str, words: str, call: ToolCall | None = None, **meta) -> Conversation:
    answer = {"role": "assistant", "content": "" if call else "Yes."}
    if call:
        answer["tool_calls"] = [call.to_message()]
    messages = [{"role": "user", "content": words}, answer]
    return Conversation(name, messages, meta={"source": f"log.jsonl:{name}"} | meta)


def finding(c: Conversation, turn: int, reason: str, confidence: float, evidence="It is so."):
    calls = c.calls(turn)
    tool = calls[0].name if calls else ""
    return Finding(c.id, c.meta["source"], turn, tool, reason, confidence, evidence)


@pytest.fixture(scope="module")
def small_log(tmp_path_factory):
    "The first records of the sample log"
    file = tmp_path_factory.mktemp("log") / "log.jsonl"
    with gzip.open(sample_log(), "rt", encoding="utf-8") as lines:
        write_atomic(file, [line.rstrip("\n") for line in islice(lines, 150)])
    return file


@pytest.fixture
def settings(tmp_path, small_log):
    "A run over them that looks for doubtful turns"
    paths = {"output_dir": str(tmp_path / "run"), "train_data_path": str(tmp_path / "t.jsonl")}
    return {"log_path": str(small_log), "clean": {"enabled": True}} | paths


@pytest.fixture
def doubting(monkeypatch):
    "A `clean` that doubts each third turn, so that these tests don't hang on what it finds"
    from toolcall.curate import cleaning

    asked = {}

    def clean(conversations, *, tools=None, doubtful="mask", drift="propose", seed=0):
        asked.update(tools=tools, doubtful=doubtful, drift=drift, seed=seed)
        turns = [(c, turn) for c in conversations for turn in c.turns][::3]
        reasons = ["other_tool", "misfit", "ungrounded"]
        doubts = [
            finding(c, turn, reasons[i % 3], 0.6 + 0.1 * (i % 4), f"{SECRET} is no such value.")
            for i, (c, turn) in enumerate(turns)
        ]
        bound = 0.5 if doubtful == "mask" else None
        step, report = mask_doubtful(conversations, doubts, at_least=bound, seed=seed)
        found = cleaning.clean(conversations[:1], drift="off")
        return cleaning.Cleaned(step.conversations, report, found.proposals, step)

    monkeypatch.setattr(cleaning, "clean", _keep(cleaning.clean, clean))
    return asked


def _keep(real, stub):
    "The stub, which may call the real function while it runs"

    def call(*args, **options):
        if len(args[0]) == 1:
            return real(*args, **options)
        return stub(*args, **options)

    return call


# --- the configuration


@pytest.mark.parametrize(
    ("clean", "sentence"),
    [
        ({"enable": True}, "clean: unknown key 'enable'; did you mean 'enabled'"),
        ({"enabled": "yes"}, "clean.enabled is of type bool, not 'yes'"),
        ({"enabled": True, "doubtful": "drop"}, "clean.doubtful is mask or keep, not 'drop'"),
        ({"enabled": True, "seed": -1}, "clean.seed is positive, not -1"),
        ({"names": "names.yaml"}, "clean.names is only applied with clean.enabled: true"),
        ([], "clean is a group of keys, not []"),
    ],
)
def test_errors_of_the_configuration_name_the_key(clean, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        make_config({"log_path": "log.json", "clean": clean})


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    known = toolcall.pipeline.config.find_spec
    lacking = lambda name: None if name == "sklearn" else known(name)  # noqa: E731
    monkeypatch.setattr(toolcall.pipeline.config, "find_spec", lacking)
    with pytest.raises(ConfigError, match=re.escape('pip install "toolcall-tune[clean]"')):
        make_config({"log_path": "log.json", "clean": {"enabled": True}})
    make_config({"log_path": "log.json"})


def test_clean_is_off_by_default_and_an_empty_group_too(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("log_path: log.json\nclean:\n", encoding="utf-8")
    assert not load_config(file).clean.enabled
    assert load_config(file, ["clean.enabled=true", "clean.drift=off"]).clean.drift is False


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "names.yaml can't be read"),
        (b"\xff\xfe\xff", "names.yaml can't be read as UTF-8"),
        (b"- a\n", 'names.yaml, as a whole: \\["a"\\] is not a mapping of tools'),
        (b"a: 1\na: 2\n", "twice"),
    ],
)
def test_a_file_of_names_that_cannot_be_read_is_an_error(tmp_path, settings, content, sentence):
    file = tmp_path / "names.yaml"
    if content is not None:
        file.write_bytes(content)
    settings["clean"] |= {"names": str(file)}
    with pytest.raises(ToolcallError, match=sentence):
        prepare(make_config(settings))


@pytest.mark.parametrize("name", ["names.yaml", "findings.jsonl", "doubts.html"])
def test_what_a_run_reads_is_not_written_over(settings, name):
    file = Path(settings["output_dir"], "data", name)
    write_atomic(file, "a: b\n")
    settings["clean"] |= {"names": str(file)}
    with pytest.raises(ConfigError, match="clean.names reads .* would write over it"):
        check_paths(make_config(settings))
    assert file.read_text(encoding="utf-8") == "a: b\n"


def test_options_arrive(tmp_path, settings, doubting):
    tools = tmp_path / "tools.json"
    entry = {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}
    tools.write_text(json.dumps([entry]), encoding="utf-8")
    settings["logs"] = {"tools": str(tools)}
    settings["clean"] |= {"doubtful": "keep", "drift": False, "seed": 7}
    prepare(make_config(settings))
    [given] = doubting.pop("tools")
    assert given["function"]["name"] == "get_weather"
    assert doubting == {"doubtful": "keep", "drift": "off", "seed": 7}


# --- counts


def test_each_reason_has_a_sentence_for_people():
    assert set(REASONS) <= set(LEFT_OUT)
    assert all(sentence and not sentence.endswith(".") for sentence in REASONS.values())


def test_counts_add_up_through_curation(settings, doubting, capsys):
    data = prepare(make_config(settings))
    turns = sum(len(c.turns) for c in data.log.conversations)
    report = data.curated.report["turns"]
    accounted = sum(n for what, n in report.items() if what != "in")
    assert report["in"] == turns == accounted
    doubts = data.cleaned.report
    thirds = (turns + 2) // 3
    assert sum(doubts.masked.values()) == thirds and doubts.kept == turns - thirds
    assert {code: report[code] for code in doubts.masked} == doubts.masked
    learned = {(c.id, turn) for c in data.curated for turn in c.turns}
    assert not learned & {(one.conversation, one.turn) for one in doubts.findings}
    assert data.curated.steps[0].name == "clean"


def test_kept_doubts_change_nothing(settings, doubting):
    settings["clean"] |= {"doubtful": "keep"}
    kept = prepare(make_config(settings))
    plain = prepare(make_config(settings | {"clean": {}}))
    assert kept.cleaned.report.findings and plain.cleaned is None
    for name, part in plain.splits.parts.items():
        assert [c.to_dict() for c in kept.splits.parts[name]] == [c.to_dict() for c in part]


def test_a_masked_answer_of_a_request_log_is_not_learned_from_a_later_history():
    first = talk("1", "Is the sea calm today?", response_at=1, conversation_id="s")
    later = [
        *first.messages,
        {"role": "user", "content": "And tomorrow, if you can tell?"},
        {"role": "assistant", "content": "No."},
    ]
    second = Conversation(
        "2", later, meta={"source": "log.jsonl:2", "response_at": 3, "conversation_id": "s"}
    )
    step, report = mask_doubtful([first, second], [finding(first, 1, "misfit", 0.9)])
    assert [c.turns for c in step.conversations] == [[], [1, 3]] and report.masked == {"misfit": 1}
    curated = curate(step.conversations)
    whole = Curated(curated.conversations, [step, *curated.steps])
    assert [c.turns for c in whole] == [[3]] and whole.report["turns"]["in"] == 3


def test_a_turn_with_several_findings_counts_once_under_the_most_confident():
    c = talk("1", "Weather?", ToolCall("alarm", {}))
    doubts = [
        finding(c, 1, "misfit", 0.7),
        finding(c, 1, "retried", 0.8),
        finding(c, 1, "foreign", 0.8),
    ]
    step, report = mask_doubtful([c], doubts)
    assert report.masked == report.doubtful == step.masked == {"retried": 1}
    assert report.tools == {"alarm": {"turns": 1, "masked": 1, "retried": 1}}
    assert [one.reason for one in report.examples[0].findings] == ["retried", "foreign", "misfit"]


def test_turns_that_carry_no_loss_are_neither_masked_nor_counted():
    c = talk("1", "Weather?", train=[])
    step, report = mask_doubtful([c], [finding(c, 1, "misfit", 1.0)])
    assert step.masked == {} and report.turns == 0 and report.doubtful == {}


def test_speaking_tools_count_as_words():
    c = talk("1", "Weather?", ToolCall("say", {"text": "Sunny."}))
    assert mask_doubtful([c], [], speaking=["say"])[1].tools == {"": {"turns": 1, "masked": 0}}


def test_counts_that_do_not_add_up_are_refused():
    with pytest.raises(ToolcallError, match="don't add up"):
        CleanReport([], 1, {"misfit": 2}, {"": {"turns": 1, "masked": 2}})


# --- files


def test_a_run_writes_findings_page_and_account(settings, doubting, capsys):
    data = make_data(make_config(settings))
    folder = Path(settings["output_dir"], "data")
    lines = (folder / "findings.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == list(map(asdict, data.cleaned.report.findings))
    assert (folder / "doubts.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    card = (folder / "README.md").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    for text in (card, printed):
        assert data.cleaned.report.lead in text
    assert "## Doubtful turns by tool" in card and "DOUBTFUL TURNS BY TOOL" in printed
    json.dumps(data.cleaned.report.to_dict(), allow_nan=False)


def test_without_clean_nothing_of_it_is_written(settings):
    make_data(make_config(settings | {"clean": {}}))
    names = {path.name for path in Path(settings["output_dir"], "data").iterdir()}
    assert not names & {"findings.jsonl", "doubts.html", "names.yaml"}


def test_with_redact_no_evidence_of_the_log_is_written(settings, doubting, capsys):
    make_data(make_config(settings | {"curate": {"redact": True}}))
    written = [
        path.read_text(encoding="utf-8") for path in Path(settings["output_dir"]).rglob("*.*")
    ]
    assert not Path(settings["output_dir"], "data", "doubts.html").exists()
    assert "other_tool" in "".join(written)
    assert SECRET not in "".join([*written, capsys.readouterr().out])


# --- the page


class _Tags(HTMLParser):
    "What a page is made of"

    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def evil_report() -> CleanReport:
    call = ToolCall(EVIL, {EVIL: EVIL})
    talks = [talk(EVIL, EVIL, call), talk("2", EVIL, call), talk("3", EVIL)]
    doubts = [
        finding(talks[0], 1, "other_tool", 0.95, EVIL),
        finding(talks[2], 1, "call_expected", 0.55, EVIL),
    ]
    return mask_doubtful(talks, doubts, notes=[EVIL])[1]


def test_hostile_content_is_only_text_on_the_page():
    page = evil_report().page.to_html()
    seen = _Tags()
    seen.feed(page)
    tags = "html meta title body style div h1 h2 p table thead tbody tr th td bdi b br small"
    assert seen.tags == {*tags.split(), "a", "section", "script"} and page.count("<script") == 1
    known = "lang charset name content class style title http-equiv scope role tabindex aria-label"
    assert seen.attributes == {*known.split(), "id", "href", "data-kind", "data-tools"}
    assert set(re.findall(r'href="([^"]*)"', page)) == {
        f"#{anchor}" for anchor in re.findall(r'id="(turn-[A-Za-z0-9.-]+)"', page)
    }
    assert "&lt;script&gt;" in page and "alert(1)" in page
    assert not re.search("[\u202a-\u202e\x00-\x08\x1b]", page)
    assert not re.search(r"https?:|url\(|@import", page.replace(EVIL, ""))


def test_hostile_content_does_not_act_in_a_terminal_or_in_markdown(tmp_path):
    report = evil_report()
    texts = [repr(report), report.first_table.to_text(300), report.page.to_text()]
    assert not re.search("[\u202a-\u202e\x1b]", "".join(texts))
    markdown = report.page.to_markdown()
    assert "<script" not in markdown and "[a](b)" not in markdown and "\x1b" not in markdown


def test_a_page_is_bounded_whatever_a_log_holds():
    long = "x" * 1_000_000
    talks = [talk(str(i), long, ToolCall(f"tool{i}", {"a": long})) for i in range(30)]
    report = mask_doubtful(talks, [finding(c, 1, "misfit", 0.9) for c in talks[:20]])[1]
    assert len(report.examples) == 10 and len(report.page.to_html()) < 100_000


def test_examples_are_drawn_from_the_sure_and_the_unsure():
    talks = [talk(str(i), f"Question {i}?") for i in range(60)]
    doubts = [
        finding(c, 1, ["misfit", "ungrounded"][i == 7], 0.99 if i < 40 else 0.6)
        for i, c in enumerate(talks)
    ]
    draws = [mask_doubtful(talks, doubts, seed=seed)[1].examples for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    for drawn in draws:
        sure = [one.findings[0].confidence > 0.9 for one in drawn]
        assert sure == [True] * 5 + [False] * 5
        assert "ungrounded" in {one.findings[0].reason for one in drawn}


# --- inspect


def test_inspect_without_scikit_learn_says_how_to_get_it(monkeypatch, tmp_path, small_log):
    monkeypatch.setattr(toolcall.curate.diagnosis, "find_spec", lambda name: None)
    text = inspect(small_log, page=tmp_path / "page.html")
    assert 'not looked at for doubts; that needs pip install "toolcall-tune[clean]"' in text
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "not looked at for doubts" in page and "DOUBTFUL" not in text


def test_inspect_shows_doubts_and_masks_none(doubting, tmp_path, small_log):
    text = inspect(small_log, page=tmp_path / "page.html")
    log = read_logs(small_log)
    turns = sum(len(c.turns) for c in log.conversations)
    assert f"of {turns:,} turns" in text and "None of them is masked" in text
    assert "SOME OF THE DOUBTS" in text and doubting["doubtful"] == "keep"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h2>Examples</h2>" in page and SECRET in page


def test_inspect_looks_at_no_more_turns_than_it_is_told(doubting, small_log):
    text = inspect(small_log, doubts=100)
    looked = re.search(r"Only the first ([\d,]+) of ([\d,]+) turns of the log are looked at", text)
    assert looked and 90 <= int(looked[1]) <= 100
    assert "DOUBTFUL" not in inspect(small_log, doubts=0)
    assert "Only the first" not in inspect(small_log)


def test_the_command_takes_the_bound(monkeypatch, capsys, small_log):
    asked = []

    def remember(*args, doubts, **options):
        asked.append(doubts)
        return ""

    monkeypatch.setattr("toolcall.pipeline.inspecting.inspect", remember)
    for more in ([], ["--doubts", "5"]):
        assert main(["inspect", str(small_log), *more]) == 0
    assert asked == [toolcall.curate.diagnosis.MOST_TURNS, 5]
