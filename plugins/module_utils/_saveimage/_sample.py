# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""A decoded stream that is only seen once, through a pipe: enough of it kept to be checked.

Head and tail are kept at their true offsets in a memory file whose middle is a hole, so that the
readers of plain streams serve for compressed ones.
"""

from __future__ import annotations

import collections
import os
from dataclasses import dataclass

_HEAD_BYTES = 1 << 20
_TAIL_BYTES = 10 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class StreamSample:
    """``fd``: the memory file, closed by whoever asked for the sample; ``length_bytes``: of the
    stream, as far as it was read."""

    fd: int
    length_bytes: int


def sample_head(pipe_fd: int) -> StreamSample:
    """Read only the beginning, where machine and RAM blocks are named."""
    data = b""
    while len(data) < _HEAD_BYTES:
        chunk = os.read(pipe_fd, _HEAD_BYTES - len(data))
        if not chunk:
            break
        data += chunk
    return _keep(data, b"", len(data))


def sample_all(pipe_fd: int) -> StreamSample:
    """Read to the end of the stream."""
    head, length = b"", 0
    tail: collections.deque[bytes] = collections.deque()
    kept = 0
    while True:
        chunk = os.read(pipe_fd, _CHUNK_BYTES)
        if not chunk:
            return _keep(head, b"".join(tail), length)
        length += len(chunk)
        if len(head) < _HEAD_BYTES:
            head += chunk
        tail.append(chunk)
        kept += len(chunk)
        while kept - len(tail[0]) >= _TAIL_BYTES:
            kept -= len(tail.popleft())


def _keep(head: bytes, tail: bytes, length_bytes: int) -> StreamSample:
    fd = os.memfd_create("stream", os.MFD_CLOEXEC)
    os.ftruncate(fd, length_bytes)
    os.pwrite(fd, head, 0)
    os.pwrite(fd, tail, length_bytes - len(tail))
    return StreamSample(fd, length_bytes)
