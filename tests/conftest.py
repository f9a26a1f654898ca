"""For all tests. How fast examples are made says something of the machine and nothing of the code."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("wherry", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wherry")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that break whole clusters: they take minutes, mostly of waiting; none should be last."""
    items.sort(key=lambda item: item.get_closest_marker("hosts") is None)
