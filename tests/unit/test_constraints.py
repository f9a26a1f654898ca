"""Constraints as people write them: what holds of what a node has, and what is refused, with the way out."""

import pytest

from manifests.constraints import Operator, compared, number_of, parse_constraint


@pytest.mark.parametrize(
    ("text", "holds", "fails"),
    [
        ("node.labels.disk == ssd", ["ssd"], ["hdd", None]),
        ("node.labels.disk==ssd", ["ssd"], ["hdd", None]),
        ("node.labels.disk != ssd", ["hdd", None], ["ssd"]),
        ("node.labels.zone in a, b", ["a", "b"], ["c", None]),
        ("node.labels.zone in [a,'b c']", ["a", "b c"], ["b", None]),
        ("node.labels.zone not in a,b", ["c", None], ["a", "b"]),
        ("node.labels.gpu exists", ["", "x"], [None]),
        ("node.labels.gpu not exists", [None], ["", "x"]),
        ("node.attributes.kernel >= 5.10", ["5.10", "5.10.1", "6.1.0-26-amd64"], ["5.4", "4.19", "x", None]),
        ("node.attributes.kernel < 5.10", ["5.9.9", "4"], ["5.10.0", "5.10", None]),
        ("node.labels.cores > 8", ["9", "16"], ["8", "8.0", "7", "many"]),
        ("node.attributes.driver.version <= v28.2", ["28.2.0", "28.1.9", "v5"], ["28.2.1", "29"]),
    ],
)
def test_what_holds_and_what_fails(text: str, holds: list[str | None], fails: list[str | None]) -> None:
    constraint = parse_constraint(text)
    assert all(constraint.holds(found) for found in holds)
    assert not any(constraint.holds(found) for found in fails)
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("zone == a", "write node.name, node.labels.X or node.attributes.X"),
        ("node.labels.zone", "is not a constraint"),
        ("node.labels.zone =~ a.*", "is not a constraint"),
        ("node.labels.zone in", "is not a constraint"),
        ("node.labels.zone == ", "a value of 1 to 128 characters must follow '=='"),
        ("node.labels.zone in a,,b", "must follow 'in'"),
        ("node.labels.gpu exists yes", "nothing follows 'exists'"),
        ("node.attributes.kernel > linux", "compares numbers and versions, and 'linux' begins with none"),
    ],
)
def test_what_is_refused_says_why_and_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_constraint(text)
    assert says in str(error.value)


def test_versions_are_compared_part_by_part() -> None:
    assert number_of("5.10.0-26-amd64") == (5, 10, 0)
    assert number_of("1.2.3.") is None
    assert compared((5, 10), (5, 9, 9)) == 1
    assert compared((5,), (5, 0, 0)) == 0
    assert {op for op in Operator if op.compares_numbers} == {">", ">=", "<", "<="}
