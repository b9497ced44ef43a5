import re

from benchmarks.rounding import main


def test_all_ways_are_a_rounding_away_from_float32(capsys):
    assert main(["--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[4] for line in lines} == {"ours", "sdpa", "eager"}
    away = [
        float(number)
        for line in lines
        for number in re.findall(r"(?:policy|critic) ([\d.]+)", line)
    ]
    # bfloat16 has steps of 2^-8; a gradient of zero, or of something else, would be 1 away.
    assert all(0.0005 < number < 0.2 for number in away)
