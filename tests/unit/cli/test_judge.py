"""`tutelage judge` as its users meet it, against an endpoint on loopback."""

import json

import pytest

from tutelage.cli.main import main
from tutelage.data.loaders import load_preferences
from tutelage.feedback.store import PreferenceStore
from tutelage.judging.fake import Failure, FakeEndpoint, Spoken, prefers

pytest.importorskip("openai")

QUESTION = [{"role": "user", "content": "how much is it?"}]


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def endpoint():
    with FakeEndpoint(prefers(lambda text: len(text) / 4.0, bias=0.2)) as made:
        yield made


@pytest.fixture
def write(tmp_path):
    def written(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return written


@pytest.fixture
def pairs(write):
    """People prefer the longer answer in 9 of 12; of each kind of source there are six."""
    rows = []
    for i in range(12):
        long, short = f"answer number {i}", f"no {i}"
        better, worse = (long, short) if i % 4 else (short, long)
        source = "first" if i < 6 else "second"
        row = {"id": f"p{i}", "prompt": QUESTION, "chosen": better, "rejected": worse}
        writers = ("ours", "theirs") if i % 2 else ("theirs", "ours")
        names = {"source_a": writers[0], "source_b": writers[1]}
        rows.append(row | names | {"source": source, "feedback": "human"})
    return write("pairs.jsonl", rows)


@pytest.fixture
def judge(endpoint, tmp_path):
    def run(*arguments, url=None, output="ai.jsonl"):
        fixed = ["--model", "fake", "--url", url or endpoint.url]
        return main(["judge", *map(str, arguments), *fixed, "--output", str(tmp_path / output)])

    return run


def test_labels_and_report_are_written(judge, pairs, endpoint, tmp_path, capsys):
    assert judge(pairs, "--report", tmp_path / "report.json", "--probes", 4) == 0
    rows = load_preferences(tmp_path / "ai.jsonl")
    assert len(rows) == 12
    assert all(row.kind == "ai" and row.orders is not None for row in rows)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["people"]["accuracy"]["mean"] == pytest.approx(9 / 12)
    assert report["people"]["kappa"]["mean"] == pytest.approx(2 * 9 / 12 - 1)
    assert report["parse_rate"]["mean"] == 1.0
    assert report["cost"]["requests"] == len(endpoint.bodies) == 24 + 4 * 4
    assert report["judge"] == rows[0].annotator
    out = capsys.readouterr().out
    assert "agreement with people: kappa" in out
    assert "P(own answer)" not in out


def test_second_time_nothing_is_asked(judge, pairs, endpoint, tmp_path, capsys):
    judge(pairs)
    before, first = len(endpoint.bodies), (tmp_path / "ai.jsonl").read_bytes()
    assert judge(pairs) == 0
    assert len(endpoint.bodies) == before
    assert (tmp_path / "ai.jsonl").read_bytes() == first


def test_report_is_json_on_request(judge, pairs, capsys):
    assert judge(pairs, "--json", "--own", "ours", "--probes", 0) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["self_preference"]["own"] == "ours"
    assert report["self_preference"]["p_own"]["n"] == 12
    assert report["sycophancy"] is None
    assert len(report["rubric"]["sha256"]) == 64


def test_store_in_and_store_out(judge, pairs, tmp_path, capsys):
    with PreferenceStore(tmp_path / "people.db") as store:
        store.add(load_preferences(pairs))
    assert judge(tmp_path / "people.db", "--json", output="ai.db") == 0
    assert json.loads(capsys.readouterr().out)["people"]["accuracy"]["n"] == 12
    assert judge(tmp_path / "people.db", output="ai.db") == 0
    with PreferenceStore(tmp_path / "ai.db") as store:
        assert len(store) == 12
        assert store.counts("kind") == {"ai": 12}


def test_pairs_that_nobody_has_judged(judge, write, capsys):
    rows = [{"id": f"p{i}", "prompt": QUESTION, "a": f"one {i}", "b": "two"} for i in range(3)]
    assert judge(write("open.jsonl", rows), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["judged"], report["people"]) == (3, None)


def test_several_labels_of_a_pair_are_one_comparison(judge, write, capsys):
    base = {"id": "p", "prompt": QUESTION, "annotator": "x", "created": "", "source": ""}
    rows = [
        base | {"a": "long answer", "b": "no", "p_a": 1.0},
        base | {"a": "no", "b": "long answer", "p_a": 0.0, "annotator": "y"},
        base | {"a": "long answer", "b": "no", "p_a": 0.5, "annotator": "z"},
    ]
    files = [write(f"{i}.jsonl", [row]) for i, row in enumerate(rows)]
    assert judge(*files, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["comparisons"] == 1
    # People give it 5/6 on average, the longer one being theirs too.
    assert report["length"]["people"]["mean"] == pytest.approx(5 / 6)


def test_one_id_with_other_texts_is_refused(judge, write, capsys):
    base = {"id": "p", "prompt": QUESTION}
    rows = [base | {"a": "one", "b": "two"}, base | {"a": "one", "b": "three"}]
    assert judge(write("odd.jsonl", rows)) == 2
    assert "pair 'p' has other texts" in capsys.readouterr().err


def test_pointwise_adds_ratings(write, tmp_path, capsys):
    rows = [{"id": "p", "prompt": QUESTION, "completions": ["x" * 4, "x" * 9]}]
    path = write("samples.jsonl", rows)
    with FakeEndpoint(prefers(len)) as endpoint:
        given = ["--model", "fake", "--url", endpoint.url, "--mode", "pointwise"]
        assert main(["judge", path, *given, "--output", str(tmp_path / "rated.jsonl")]) == 0
    rated = json.loads((tmp_path / "rated.jsonl").read_text())
    assert rated["ratings"] == pytest.approx([4.0, 9.0])
    assert rated["completions"] == rows[0]["completions"]
    assert "2 of 2" in capsys.readouterr().out


def test_function_is_reported_on_like_a_model(write, pairs, tmp_path, capsys):
    file = tmp_path / "judges.py"
    file.write_text(
        "def first(comparisons):\n"
        "    return [0.9 if len(c.a) >= len(c.b) else 0.7 for c in comparisons]\n"
    )
    given = ["--function", f"{file}:first", "--output", str(tmp_path / "ai.jsonl"), "--json"]
    assert main(["judge", pairs, *given]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["position"]["p_first"]["mean"] == pytest.approx(0.8)
    assert report["position"]["contradictions"]["mean"] == 1.0
    assert any("position decides" in warning for warning in report["warnings"])
    assert load_preferences(tmp_path / "ai.jsonl")[0].annotator == "first"


def test_function_that_returns_no_probability_is_told(pairs, tmp_path, capsys):
    file = tmp_path / "judges.py"
    file.write_text("def scores(comparisons):\n    return [3.5 for c in comparisons]\n")
    given = ["--function", f"{file}:scores", "--output", str(tmp_path / "ai.jsonl")]
    assert main(["judge", pairs, *given]) == 1
    assert "returned 3.5: expected the probability" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "ai.jsonl").exists()


def test_store_is_read_whatever_its_name(judge, pairs, tmp_path):
    with PreferenceStore(tmp_path / "labels") as store:
        store.add(load_preferences(pairs))
    assert judge(str(tmp_path / "labels")) == 0
    assert len(load_preferences(tmp_path / "ai.jsonl")) == 12


def test_budget_ends_it_with_what_there_is_and_says_how_to_go_on(
    judge, pairs, endpoint, tmp_path, capsys
):
    assert judge(pairs, "--max-tokens", 3000) == 1
    assert "the budget ended it" in capsys.readouterr().err
    some = len(load_preferences(tmp_path / "ai.jsonl"))
    assert 0 < some < 12
    assert judge(pairs, "--max-tokens", 300_000, "--probes", 0) == 0
    assert len(load_preferences(tmp_path / "ai.jsonl")) == 12
    assert len(endpoint.bodies) <= 24 + 1


def test_unreadable_judge_is_an_alarm(pairs, tmp_path, capsys):
    with FakeEndpoint(lambda body: Spoken("I cannot say.", ({"I": 1.0},))) as endpoint:
        given = ["--model", "fake", "--url", endpoint.url, "--output", str(tmp_path / "ai.jsonl")]
        assert main(["judge", pairs, *given]) == 0
    assert "only 0.0% of the verdicts could be read" in capsys.readouterr().out
    assert (tmp_path / "ai.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--url", "https://judge.example/v1"], "set OPENAI_API_KEY in the environment"),
        (["--url", "http://127.0.0.1:9/v1", "--retries", "0"], "is it running?"),
        (["--url", "ftp://127.0.0.1/v1"], "expected http://HOST:PORT/v1"),
        (["--url", "http://127.0.0.1:9/v1", "--rubric", "none.txt"], "rubric none.txt"),
        (["--url", "http://127.0.0.1:9/v1", "--max-cost", "1"], "set price_in and price_out"),
        (["--url", "http://127.0.0.1:9/v1", "--extra", "[]"], "is no JSON object"),
        (["--function", "none.py:f"], "leave the model's options out"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(pairs, tmp_path, capsys, arguments, complaint):
    fixed = ["--model", "fake", "--output", str(tmp_path / "ai.jsonl")]
    assert main(["judge", pairs, *fixed, *arguments]) in (1, 2)
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_wrong_model_and_wrong_token_are_named(judge, endpoint, pairs, monkeypatch, capsys):
    endpoint.model = "another"
    assert judge(pairs) == 1
    assert "knows no model 'fake'" in capsys.readouterr().err
    endpoint.token = "a secret"
    assert judge(pairs) == 1
    assert "refuses the token" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_API_KEY", "a secret")
    endpoint.model = None
    assert judge(pairs) == 0


def test_no_file_and_no_model_are_said(tmp_path, capsys):
    assert main(["judge", "--model", "fake", "--output", str(tmp_path / "x")]) == 2
    assert "no pairs" in capsys.readouterr().err
    assert main(["judge", "none.jsonl", "--output", str(tmp_path / "x")]) == 2
    assert "model" in capsys.readouterr().err
    url = ["--model", "fake", "--url", "http://127.0.0.1:9/v1"]
    assert main(["judge", "none.jsonl", *url, "--output", str(tmp_path / "x")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_settings_come_from_a_file(endpoint, pairs, tmp_path):
    (tmp_path / "judge.yaml").write_text(
        f"model: fake\nurl: {endpoint.url}\nconcurrency: 2\ncache: {tmp_path / 'kept.db'}\n"
    )
    given = ["--config", str(tmp_path / "judge.yaml"), "--output", str(tmp_path / "ai.jsonl")]
    assert main(["judge", pairs, *given, "--probes", "0"]) == 0
    assert endpoint.most_at_once <= 2
    assert (tmp_path / "kept.db").is_file()


def test_help_answers(capsys):
    assert main(["judge", "--help"]) == 0
    out = capsys.readouterr().out
    for option in ("--model", "--url", "--rubric", "--max-cost", "--probes", "--own", "--output"):
        assert option in out


def test_failures_on_the_way_cost_nothing_but_time(judge, pairs, endpoint):
    endpoint.script = [Failure(503)] * 3
    assert judge(pairs, "--concurrency", 1, "--probes", 0) == 0
