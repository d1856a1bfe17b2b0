"Several servers with one model: who answers what, and what happens when one of them fails"

import json
import random
import threading
import time
import warnings
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall.conversation import Conversation, make_tool
from toolcall.errors import GenerateError
from toolcall.generate import EndpointEngine, predict
from toolcall.generate.affinity import Prefixes, divide
from toolcall.generate.assignment import Assignment
from toolcall.turn import Example

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


class Fake:
    "A server that answers with the last message; `fails` says what it does in its place"

    def __init__(self, fails=lambda count, words: None, delay=0.0):
        self.asked: list[dict] = []
        self.answered: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.asked.append(body)
                words = body["messages"][-1]["content"]
                failure = fails(len(fake.asked), words)
                time.sleep(delay)
                if failure == "hang up":
                    self.close_connection = True
                    return
                if failure == "hang":
                    fake.ended.wait(30)
                    return
                answer = {"choices": [{"finish_reason": "stop", "message": {"content": words}}]}
                content = json.dumps({"error": "broken"} if failure else answer).encode()
                if not failure:
                    fake.answered.append(words)
                self.send_response(failure or 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

            def handle(self):
                with suppress(OSError):  # the client has closed the connection
                    super().handle()

        self.ended = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.ended.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def fakes():
    made = []

    def make(*args, **settings):
        made.append(Fake(*args, **settings))
        return made[-1]

    yield make
    for fake in made:
        fake.close()


CATALOGUES = [[make_tool(f"{kind}_{n}", "x" * 300) for n in range(5)] for kind in "abcd"]


def turns(count=24, catalogues=4):
    "Each question once, in any order of the catalogues"
    draw = random.Random(count)
    numbers = draw.sample(range(count), count)
    return [
        Example(
            [1],
            [2],
            Conversation(
                f"c{n}",
                [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": "?"}],
                CATALOGUES[n % catalogues],
            ),
            1,
        )
        for n in numbers
    ]


def questions(examples):
    return [example.conversation.messages[0]["content"] for example in examples]


def ask(engine, examples, **options):
    "The texts in the order of the turns, what each address answered, and the warnings"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outputs = predict(engine, examples, progress=False, **options)
    assert [output.text for output in outputs] == questions(examples)
    return Counter(output.answered_by for output in outputs), [str(one.message) for one in caught]


def test_a_catalogue_is_asked_at_one_server(fakes, monkeypatch):
    monkeypatch.setattr(Assignment, "_take_over", lambda *_: False)  # whoever is faster
    servers = [fakes(), fakes()]
    engine = EndpointEngine([one.url for one in servers], "m", concurrency=3)
    shares, said = ask(engine, turns())
    assert shares == {one.url: 12 for one in servers} and not said
    tools = [{body["tools"][0]["function"]["name"] for body in one.asked} for one in servers]
    assert sorted(map(len, tools)) == [2, 2] and not tools[0] & tools[1]
    names = [body["tools"][0]["function"]["name"] for body in servers[0].asked]
    assert sum(one != other for one, other in zip(names, names[1:])) <= 3  # three at a time


def test_one_catalogue_is_split(fakes, monkeypatch):
    monkeypatch.setattr(Assignment, "_take_over", lambda *_: False)
    servers = [fakes(), fakes()]
    engine = EndpointEngine([one.url for one in servers], "m", concurrency=1)
    shares, _ = ask(engine, turns(catalogues=1))
    assert sorted(shares.values()) == [12, 12]


def test_a_slow_server_gives_away_what_it_has_not_begun(fakes):
    slow, fast = fakes(delay=0.25), fakes()
    engine = EndpointEngine([slow.url, fast.url], "m", concurrency=1)
    shares, said = ask(engine, turns(catalogues=1))
    assert shares[fast.url] > 2 * shares[slow.url] and not said
    assert Counter(slow.answered + fast.answered) == Counter(questions(turns(catalogues=1)))


@pytest.mark.parametrize("failure", ["hang up", 500, 503, 429])
def test_a_server_that_fails_in_the_middle_loses_nothing(fakes, failure):
    healthy = fakes()
    failing = fakes(lambda count, words: failure if count > 4 else None)
    engine = EndpointEngine([failing.url, healthy.url], "m", concurrency=3, timeout=5)
    shares, said = ask(engine, turns())
    assert shares.total() == 24 and shares[failing.url] <= 4
    assert Counter(healthy.answered + failing.answered) == Counter(questions(turns()))
    assert f"{failing.url} failed (failed_" in said[0] and len(said) == 1


def test_a_server_that_hangs_is_left_at_the_deadline(fakes):
    healthy = fakes()
    hanging = fakes(lambda count, words: "hang")
    engine = EndpointEngine([hanging.url, healthy.url], "m", concurrency=2, timeout=2)
    shares, said = ask(engine, turns())
    assert shares == {healthy.url: 24} and "no whole answer in 2 seconds" in said[0]
    assert len(hanging.asked) <= 4


def test_a_server_that_is_not_there_is_left_at_once(fakes):
    healthy, gone = fakes(), fakes()
    gone.close()
    engine = EndpointEngine([gone.url, healthy.url], "m", concurrency=2)
    shares, said = ask(engine, turns())
    assert shares == {healthy.url: 24} and "is the address right?" in said[0]


def test_a_server_that_comes_back_gets_prompts_again(fakes):
    restarted = fakes(lambda count, words: 503 if 3 <= count <= 4 else None, delay=0.02)
    other = fakes(delay=0.15)
    engine = EndpointEngine([restarted.url, other.url], "m", concurrency=1)
    shares, said = ask(engine, turns(count=36))
    assert shares[restarted.url] > 6 and not said
    answered = Counter(restarted.answered + other.answered)
    assert answered.keys() == {*questions(turns(count=36))}
    assert answered.total() - 36 <= 2  # it is asked again for what it answered last


def test_a_wrong_key_stops_only_where_all_refuse_it(fakes):
    healthy, refusing = fakes(), fakes(lambda count, words: 401)
    engine = EndpointEngine([refusing.url, healthy.url], "m")
    shares, said = ask(engine, turns())
    assert shares == {healthy.url: 24} and "refused_401" in said[0]
    both = [refusing.url, fakes(lambda count, words: 401).url]
    with pytest.raises(GenerateError, match="answered 0 of 24 prompts, then failed: refused_401"):
        predict(EndpointEngine(both, "m"), turns(), progress=False)


def test_a_prompt_that_breaks_each_server_is_given_up(fakes, tmp_path):
    servers = [fakes(lambda count, words: 500 if words == "Q5" else None) for _ in range(2)]
    engine = EndpointEngine([one.url for one in servers], "m", concurrency=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = predict(engine, turns(), path=tmp_path / "kept.jsonl", progress=False)
    failed = {n: output.error for n, output in enumerate(outputs) if output.error}
    assert failed == {questions(turns()).index("Q5"): "failed_500"}
    asked = [body["messages"][0]["content"] for one in servers for body in one.asked]
    assert asked.count("Q5") == 6
    assert (tmp_path / "kept.jsonl").read_bytes().count(b"\n") == 23


def test_a_run_goes_on_from_its_file_with_fewer_servers(fakes, tmp_path):
    first, second = (
        fakes(lambda count, words: 401 if count > 5 else None),
        fakes(lambda count, words: 401),
    )
    path = tmp_path / "outputs.jsonl"
    with pytest.raises(GenerateError, match="answered 5 of 24"):
        predict(
            EndpointEngine([first.url, second.url], "m", concurrency=1),
            turns(),
            path=path,
            progress=False,
        )
    kept = path.read_bytes()
    assert kept.count(b"\n") == 5 and first.url.encode() in kept
    healthy = fakes()
    again = EndpointEngine([first.url, healthy.url], "m")
    shares, _ = ask(again, turns(), path=path)
    assert shares == {first.url: 5, healthy.url: 19} and path.read_bytes().startswith(kept)
    assert not set(first.answered) & set(healthy.answered)
    asked = len(healthy.asked)
    ask(EndpointEngine(first.url, "m"), turns(), path=path)  # nothing is asked any more
    assert len(healthy.asked) == asked


def test_the_turns_of_a_conversation_go_to_one_server(fakes):
    servers = [fakes(), fakes(), fakes()]
    engine = EndpointEngine([one.url for one in servers], "m")
    for conversation in range(8):
        messages = []
        for turn in range(3):
            messages = [*messages, {"role": "user", "content": f"{conversation}.{turn}"}]
            messages += [{"role": "assistant", "content": engine.reply(messages, []).text}]
    where = [{words.split(".")[0] for words in one.answered} for one in servers]
    assert sum(map(len, where)) == len(set.union(*where)) == 8 and sum(map(bool, where)) > 1


MESSAGES = st.lists(st.sampled_from("abc"), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.lists(st.tuples(MESSAGES, st.sampled_from([0, 1])), max_size=30), st.integers(1, 5))
def test_a_division_keeps_each_prompt_and_computes_little_twice(prompts, parts):
    written = [
        ([{"role": "user", "content": letter * 400} for letter in letters], CATALOGUES[which])
        for letters, which in prompts
    ]
    prefixes = Prefixes.of(written)
    order = prefixes.order()
    lists = divide(prefixes, order, parts)
    assert len(lists) == parts and [n for part in lists for n in part] == order
    used = [part for part in lists if part]
    longest = max(map(prefixes.size, order), default=0)
    assert sum(map(prefixes.cost, lists)) <= prefixes.cost(order) + longest * (len(used) - 1)
    assert max(map(prefixes.cost, lists)) <= 1.1 * (prefixes.cost(order) / parts + 2 * longest)
