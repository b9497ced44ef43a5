import hashlib
import math

import pytest

from tutelage.tracking.fingerprint import file_fingerprint, fingerprint


def test_it_is_the_sha256_of_canonical_json():
    expected = hashlib.sha256('{"a":"é","b":[1,2.5,null]}'.encode()).hexdigest()
    assert fingerprint({"b": [1, 2.5, None], "a": "é"}) == expected


def test_the_order_of_keys_changes_nothing_at_any_depth():
    assert fingerprint({"a": {"x": 1, "y": 2}, "b": 3}) == fingerprint(
        {"b": 3, "a": {"y": 2, "x": 1}}
    )


def test_any_other_difference_changes_it():
    values = [{"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, {"a": [1]}, {"a": 1.5}, {"a": None}, {}]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_a_value_that_json_cannot_carry_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"a": math.nan})
    with pytest.raises(TypeError, match="not JSON serializable"):
        fingerprint({"a": object()})


def test_a_file_is_hashed_whole_however_long(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert file_fingerprint(tmp_path / "a") == hashlib.sha256(content).hexdigest()
