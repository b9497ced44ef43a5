import io

from rich.console import Console

from tutelage.tracking.evaluation_record import EvaluationRecord
from tutelage.tracking.example_run import example_evaluation
from tutelage.tracking.table import Overview, evaluation_table


def printed(evaluation, width=80):
    file = io.StringIO()
    Console(file=file, width=width).print(evaluation_table(EvaluationRecord.from_json(evaluation)))
    return file.getvalue()


def test_three_models_fit_into_a_pipe_with_every_number_whole():
    text = printed(example_evaluation())
    rows = {line.strip().split("  ")[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["Proxy reward (\u03c3)"][-6:] == ["0.0", "±0.1", "5.9", "±0.2", "1.3", "±0.1"]
    expected = ["0.23", "±0.06", "-1.62", "±0.07", "✗", "0.61", "±0.06", "✓"]
    assert rows["Gold score"][-8:] == expected
    assert rows["KL from SFT (nats)"][-5:] == ["0.0", "21.3", "±0.6", "4.8", "±0.2"]
    assert rows["Complies with attacks (%)"][-8:] == ["36", "±7", "0", "±1", "✓", "1", "±1", "✓"]
    assert "worse than Before" in text
    assert "…" not in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_measure_that_a_model_lacks_says_so():
    evaluation = example_evaluation()
    del evaluation["models"][0]["measures"]["gold"]
    line = next(line for line in printed(evaluation).splitlines() if "Gold" in line)
    assert line.split()[2] == "n/a"


def test_names_are_text_and_nothing_else():
    evaluation = example_evaluation()
    evaluation["models"][0]["label"] = "[red]x[/red]\x1b[2J"
    text = printed(evaluation, width=120)
    assert "[red]x[/red] [2J" in text
    assert "\x1b" not in text


def test_one_model_alone_makes_a_table_too():
    evaluation = example_evaluation()
    evaluation["models"] = evaluation["models"][:1]
    evaluation["differences"] = []
    assert "0.23 ±0.06" in printed(evaluation)


def many_models():
    """Six models: the baseline, and five like the guarded one, of which the last has no gold."""
    evaluation = example_evaluation()
    before, _, guarded = evaluation["models"]
    names = [f"ppo {i}" for i in range(5)]
    evaluation["models"] = [before] + [
        {**guarded, "name": n, "label": n, "measures": dict(guarded["measures"])} for n in names
    ]
    del evaluation["models"][-1]["measures"]["gold"]
    rows = [row for row in evaluation["differences"] if row["model"] == "guarded"]
    evaluation["differences"] = [{**row, "model": n} for row in rows for n in names[:4]]
    return evaluation


def test_more_models_than_columns_fit_stand_one_below_the_other():
    text = printed(many_models(), width=72)
    (line,) = [line for line in text.splitlines() if "PPO 0" in line]
    # Gold, what it gained, proxy, KL, length.
    assert line.split("  ")[0].strip() == "PPO 0"
    assert " ".join(line.split()[2:]) == ("0.61 ±0.06 +0.38 ±0.08 ✓ 1.3 ±0.1 4.8 ±0.2 27.9 ±0.9")
    (last,) = [line for line in text.splitlines() if "PPO 4" in line]
    assert last.split()[2] == "n/a"
    assert "Gold score \u2212" in text
    assert max(map(len, text.splitlines())) <= 72
    assert "…" not in text


def test_what_is_wider_than_the_console_goes_on_below_with_the_names_again():
    narrow, wide = printed(many_models(), width=56), printed(many_models(), width=72)
    assert max(map(len, narrow.splitlines())) <= 56
    assert "…" not in narrow
    rows = [line.split()[2:] for line in narrow.splitlines() if "PPO 0" in line]
    assert len(rows) > 1
    (whole,) = [line.split()[2:] for line in wide.splitlines() if "PPO 0" in line]
    assert [word for row in rows for word in row] == whole
    assert " ".join(narrow.split()).count("better, ✗ worse than Before") == 1


def test_a_column_wider_than_the_console_ends_the_search_for_room():
    assert "PPO 0" in printed(many_models(), width=20)


def test_overview_as_markdown_says_the_same():
    record = EvaluationRecord.from_json(many_models())
    lines = Overview(record, "over nothing").to_markdown().splitlines()
    assert lines[3] == ("| PPO 0 | 0.61 ±0.06 | +0.38 ±0.08 ✓ | 1.3 ±0.1 | 4.8 ±0.2 | 27.9 ±0.9 |")
    assert {line.count("|") for line in lines[:8]} == {7}
    assert lines[-1].startswith("over nothing; ✓ better")
