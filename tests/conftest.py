# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every test gets: the collection's import path, the choice of matrix cells, hypothesis' home.

The import path is a tree of one link, ``.build/collections/ansible_collections/vmfleet/suspend``
-> the checkout, so that the checkout itself may be called anything.
"""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import hypothesis
import hypothesis.configuration
import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
BUILD = CHECKOUT / ".build"
COLLECTIONS = BUILD / "collections"


def link_collection(collections: Path, checkout: Path) -> None:
    """Make ``vmfleet.suspend`` under *collections* lead to *checkout* (as tools/setup.sh does)."""
    link = collections / "ansible_collections" / "vmfleet" / "suspend"
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.resolve() == checkout:
        return
    new = link.with_name(f"suspend.{os.getpid()}")  # replaced at once: xdist workers race here
    new.symlink_to(os.path.relpath(checkout, link.parent), target_is_directory=True)
    new.replace(link)


link_collection(COLLECTIONS, CHECKOUT)
sys.path.insert(0, str(COLLECTIONS))
# What the tests start (ansible, ansible-playbook) finds the collection in the same place.
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)

hypothesis.configuration.set_hypothesis_home_dir(BUILD / "hypothesis")
# A deadline per example measures the machine's other load, not the code.
hypothesis.settings.register_profile("vmfleet", deadline=None)
hypothesis.settings.load_profile("vmfleet")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="run every cell of the matrices, not only the representative ones (make test-full)",
    )
    parser.addoption(
        "--write-docs",
        action="store_true",
        help="write the pages under docs/ that tests generate, from the tests that are run",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "full: a cell of a matrix that only `make test-full` (--full) runs"
    )
    if config.getoption("--write-docs") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--write-docs needs one process: a page has rows of several files")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    only_full = [item for item in items if item.get_closest_marker("full")]
    if only_full:
        config.hook.pytest_deselected(items=only_full)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


@pytest.fixture(autouse=True)
def own_store_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is measured in one test decides nothing in another, nor on this machine."""
    from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage import _store_figures

    directory = tmp_path_factory.getbasetemp() / f"figures-{uuid.uuid4().hex}"
    monkeypatch.setattr(_store_figures, "DIRECTORY", str(directory))
