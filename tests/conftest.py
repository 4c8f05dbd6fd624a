"""Which tests run in one process: those of a file, and all that need Kafka, so that one broker does for them."""

from pathlib import Path

import pytest

_KAFKA = Path(__file__).parent / "kafka"


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        group = "kafka" if item.path.is_relative_to(_KAFKA) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
