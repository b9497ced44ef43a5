"""When two texts count as the same."""

from tutelage.data.text import control_characters, normalize, suspicions


def test_white_space_and_accents_have_one_form() -> None:
    assert normalize("  a\n\tb\u00a0 c ") == "a b c"
    assert normalize("e\u0301") == "\u00e9"
    assert normalize("A") != normalize("a")


def test_white_space_is_no_control_character() -> None:
    assert control_characters("a\tb\nc\rd\x0ce") == []
    assert control_characters("\x1b[0m \x00\x7f\x00") == ["U+0000", "U+001B", "U+007F"]


def test_ordinary_punctuation_is_not_suspicious() -> None:
    assert list(suspicions("if a < b or [x] and <b>bold</b>: |> ok")) == []
    assert len(list(suspicions("[INST] <pad> <start_of_turn>"))) == 1
