# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing an image with memory: this process's own, which /proc shows like a guest's."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _content
from ansible_collections.vmfleet.suspend.plugins.module_utils._save._content import (
    Difference,
    RamRange,
    first_difference,
)

PAGE = 4096
BLOCK = 64 * PAGE
OFFSET = 1 << 20


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(_content, "_CHUNK_BYTES", 3 * PAGE)


@pytest.fixture
def memory():
    """RAM of which the pages 2 to 9 and 40 have content, the rest none."""
    memory = mmap.mmap(-1, BLOCK)
    for page in (*range(2, 10), 40):
        memory[page * PAGE : (page + 1) * PAGE] = os.urandom(PAGE)
    return memory


@pytest.fixture
def image(tmp_path, memory):
    """Its pages at OFFSET, those without content as holes."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        for page in (*range(2, 10), 40):
            os.pwrite(file.fileno(), memory[page * PAGE : (page + 1) * PAGE], OFFSET + page * PAGE)
        os.ftruncate(file.fileno(), OFFSET + BLOCK)
    return path


def compare(image, memory, stop=None, **changes):
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    ram = RamRange("pc.ram", OFFSET, address, BLOCK)
    with image.open("rb") as file:
        return first_difference(file.fileno(), os.getpid(), [ram], stop)


def test_equal_memory_has_no_difference(image, memory):
    assert compare(image, memory) is None


@pytest.mark.parametrize(
    "position",
    [2 * PAGE, 5 * PAGE + 1234, 10 * PAGE - 1, 40 * PAGE + 17],
)
def test_a_byte_that_differs_is_found_at_its_place(image, memory, position):
    memory[position] ^= 1
    assert compare(image, memory) == Difference("pc.ram", position, OFFSET + position)


@pytest.mark.parametrize("position", [0, 20 * PAGE + 5, BLOCK - 1])
def test_content_where_the_image_has_a_hole_is_found(image, memory, position):
    memory[position] = 1
    assert compare(image, memory) == Difference("pc.ram", position, OFFSET + position)


def test_content_that_memory_has_no_more_is_found(image, memory):
    memory[3 * PAGE : 4 * PAGE] = bytes(PAGE)
    found = compare(image, memory)
    assert found is not None
    assert found.block_offset_bytes // PAGE == 3


def test_of_several_differences_the_first_is_told(image, memory):
    for position in (50 * PAGE, 7 * PAGE + 3, 30 * PAGE):
        memory[position] ^= 1
    assert compare(image, memory) == Difference("pc.ram", 7 * PAGE + 3, OFFSET + 7 * PAGE + 3)


def test_memory_that_cannot_be_read_is_an_error_not_a_match(image):
    ram = RamRange("pc.ram", OFFSET, 0x1000, BLOCK)
    with image.open("rb") as file, pytest.raises(OSError):
        first_difference(file.fileno(), os.getpid(), [ram])


def test_it_ends_early_when_nobody_waits_any_more(image, memory):
    stop = threading.Event()
    stop.set()
    memory[2 * PAGE] ^= 1
    assert compare(image, memory, stop) is None
