import pytest
from benchmarks.core.process import SideFailed
from benchmarks.core.row import NotAvailable, Row, Side
from benchmarks.core.run import run_row, run_until_quiet

OURS = Side("tutelage", "ours", gated=True)
PEER = Side("peer", "peer", environment="peer")
ROW = Row("X1", "a row", ">= 2x", [OURS, PEER])
EXACT = {"name": "gap", "value": 0.0, "limit": 1.0, "passed": True}


class ScriptedSide:
    """A side whose seconds are given; keeps a diary that all sides share."""

    def __init__(self, side, seconds, diary, *, tokens=10, gate=EXACT, missing=None, broken=False):
        self.side, self.seconds, self.diary = side, iter(seconds), diary
        self.tokens, self.gate, self.missing, self.broken = tokens, gate, missing, broken

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.diary.append(("closed", self.side.name))

    def prepare(self):
        if self.missing:
            raise NotAvailable(self.missing)
        return {"torch": "0"}

    def check(self):
        return [self.gate]

    def run(self, seconds=0.0):
        if self.broken:
            raise SideFailed("it broke")
        if self.side.name.startswith("rates"):
            return {"flops": 1e9, "bytes_per_s": 1e9}
        self.diary.append(("ran", self.side.name))
        self.diary.append(("seconds", seconds))
        seconds = next(self.seconds)
        return {"wall_s": seconds, "cpu_s": seconds, "tokens": self.tokens}


def run(row=ROW, repeats=2, ours=(1.0, 1.0), peer=(3.0, 3.0), ours_is=None, peer_is=None, turn=0.0):
    diary = []
    made = {
        "tutelage": lambda side: ScriptedSide(side, ours, diary, **(ours_is or {})),
        "peer": lambda side: ScriptedSide(side, peer, diary, **(peer_is or {})),
    }
    return run_row(row, repeats, lambda side: made[side.environment](side), turn), diary


def test_quiet_run_gives_ratios_in_both_clocks():
    record, _ = run()
    assert record["status"] == "ok"
    assert [(r["quantity"], r["value"]) for r in record["ratios"]] == [
        ("wall_s", 3.0),
        ("cpu_s", 3.0),
    ]
    assert record["sides"]["peer"]["median"]["wall_s"] == 3.0


def test_share_of_the_limit_is_least_over_measured_seconds():
    from benchmarks.sides.limits import least_seconds

    requests = {"shape": "micro", "count": 2, "shortest": 4, "longest": 4, "answer": 8}
    row = Row("X1", "", "", [OURS, PEER], work={"kind": "update", "requests": requests})
    record, _ = run(row=row)
    least = least_seconds("update", requests, "float32", {"flops": 1e9, "bytes_per_s": 1e9})
    share = record["limit"]["share"]
    assert share == {"tutelage": pytest.approx(least), "peer": pytest.approx(least / 3)}


def test_sides_take_turns_as_recorded():
    record, diary = run(repeats=2)
    ran = [name for what, name in diary if what == "ran"]
    assert ran == record["order"] == ["tutelage", "peer", "peer", "tutelage"]


def test_failed_gate_means_no_figures_and_no_peer():
    wrong = {**EXACT, "value": 2.0, "passed": False}
    record, diary = run(ours_is={"gate": wrong})
    assert record["status"] == "parity failed"
    assert record["ratios"] == []
    assert ("ran", "tutelage") not in diary
    assert "peer" not in record["sides"]


@pytest.mark.parametrize(
    ("noisy", "seconds"),
    [("peer", {"peer": (3.0, 3.8)}), ("tutelage", {"ours": (1.0, 1.4)})],
)
def test_noise_of_ours_or_of_all_peers_discards_the_run(noisy, seconds):
    record, _ = run(**seconds)
    assert record["status"] == "discarded"
    assert noisy in record["reason"]
    assert record["ratios"] == []


def test_a_noisy_peer_is_left_out_where_another_one_is_quiet():
    second = Side("second", "second", environment="second")
    diary = []
    seconds = {"tutelage": (1.0, 1.0), "peer": (3.0, 3.8), "second": (2.0, 2.0)}
    record = run_row(
        Row("X1", "a row", ">= 2x", [OURS, PEER, second]),
        2,
        lambda side: ScriptedSide(side, seconds[side.name], diary),
    )
    assert record["status"] == "ok"
    assert {ratio["peer"] for ratio in record["ratios"]} == {"second"}
    assert list(record["noisy"]) == ["peer"]


def test_sides_must_do_the_same_work():
    record, _ = run(peer_is={"tokens": 11})
    assert record["status"] == "work differs"
    assert record["ratios"] == []


def test_missing_feature_is_said_and_the_peer_not_started():
    record, _ = run(ours_is={"missing": "no such thing yet"})
    assert (record["status"], record["reason"]) == ("not available", "no such thing yet")
    assert set(record["sides"]) == {"tutelage"}


def test_missing_peer_is_left_out():
    record, _ = run(peer_is={"missing": "no wheel"})
    assert record["status"] == "ok"
    assert record["ratios"] == []
    assert record["sides"]["peer"]["not_available"] == "no wheel"


def test_peer_without_an_environment_is_left_out():
    diary = []

    def open_side(side):
        if side is PEER:
            raise NotAvailable("no such package")
        return ScriptedSide(side, (1.0, 1.0), diary)

    record = run_row(ROW, 2, open_side)
    assert (record["status"], record["ratios"]) == ("ok", [])
    assert record["sides"]["peer"]["not_available"] == "no such package"


def test_broken_side_is_a_failure_with_its_message():
    record, _ = run(peer_is={"broken": True})
    assert (record["status"], record["reason"]) == ("failed", "it broke")


@pytest.mark.parametrize(("fresh", "opened"), [(False, 2), (True, 2 + 2 * 2)])
def test_fresh_rows_have_a_process_per_repeat(fresh, opened):
    row = Row("X1", "a row", "", [OURS, PEER], fresh=fresh)
    _, diary = run(row=row)
    assert sum(what == "closed" for what, _ in diary) == opened


@pytest.mark.parametrize(
    ("settings", "asked"),
    [({}, 10.0), ({"fresh": True}, 0.0), ({"repeatable": False}, 0.0)],
)
def test_turns_are_long_where_calls_do_the_same_work(settings, asked):
    record, diary = run(row=Row("X1", "a row", "", [OURS, PEER], **settings), turn=10.0)
    assert record["seconds"] == asked
    assert {seconds for what, seconds in diary if what == "seconds"} == {asked}


@pytest.mark.parametrize(
    ("statuses", "kept"),
    [
        (["ok"], 1),
        (["discarded", "ok"], 2),
        (["discarded"] * 5, 3),
        (["failed", "ok"], 1),
    ],
)
def test_discarded_runs_are_kept_and_measured_again(statuses, kept):
    scripted, records = iter(statuses), []
    last = run_until_quiet(lambda: {"status": next(scripted)}, records.append, retries=2)
    assert [record["status"] for record in records] == statuses[:kept]
    assert [record["attempt"] for record in records] == list(range(1, kept + 1))
    assert last is records[-1]


def test_each_turn_is_told_when_it_is_over():
    told = []
    sides = {"tutelage": [1.0, 1.0], "peer": [3.0, 3.25]}
    run_row(ROW, 2, lambda s: ScriptedSide(s, iter(sides[s.environment]), []), notify=told.append)
    assert told[0] == "turn 1 of 4, tutelage: wall_s 1, cpu_s 1"
    assert len(told) == 4
