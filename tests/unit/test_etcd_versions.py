"""What is said of etcd's versions."""

import pytest

from control_plane.store.etcd_versions import DEFECTS, OLDEST, defects_of, parsed


@pytest.mark.parametrize("version", ["3.4.23", "3.4.30"])
def test_debian_s_etcd_is_known_to_drop_leases(version: str) -> None:
    assert any("drops live leases" in defect for defect in defects_of(version))


@pytest.mark.parametrize("version", ["3.5.13", "3.5.21", "3.6.0", "3.6.4-rc.1", "4.0.0"])
def test_sound_versions_are_not_warned_of(version: str) -> None:
    assert defects_of(version) == ()


def test_a_version_before_the_oldest_supported_one_is_told_apart() -> None:
    assert defects_of("3.3.27") == ("3.3.27 is too old: 3.4.22 is the oldest that Wherry works with",)


@pytest.mark.parametrize("version", ["", "3.5", "three", "3.5.x", "3.5.1.1"])
def test_what_is_no_version_has_no_defects(version: str) -> None:
    assert defects_of(version) == ()


def test_each_defect_is_told_up_to_the_version_that_mends_it() -> None:
    for defect in DEFECTS:
        first = max(defect.first, OLDEST)
        assert any(defect.what in told for told in defects_of(".".join(map(str, first))))
        assert not any(defect.what in told for told in defects_of(".".join(map(str, defect.mended))))


def test_numbers_are_read_without_what_stands_after_them() -> None:
    assert parsed("3.5.13+git") == (3, 5, 13)
