from benchmarks.core.order import rounds


def test_two_sides_take_turns_as_abbaab():
    assert "".join(side for _, side in rounds("AB", 6)) == "ABBAABBAABBA"


def test_each_side_runs_once_per_round():
    for repeats in (1, 2, 5):
        turns = list(rounds("ABC", repeats))
        assert sorted(turns) == [(n, s) for n in range(repeats) for s in "ABC"]


def test_each_side_is_first_as_often_as_last():
    turns = list(rounds("ABC", 4))
    firsts = [side for i, (_, side) in enumerate(turns) if i % 3 == 0]
    lasts = [side for i, (_, side) in enumerate(turns) if i % 3 == 2]
    assert sorted(firsts) == sorted(lasts) == ["A", "A", "C", "C"]
