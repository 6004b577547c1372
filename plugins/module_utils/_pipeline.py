# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Programs and the pump between QEMU's pipe and an image.

    save:     QEMU -> pipe -> [compressor -> pipe ->] pump -> image
    restore:  image -> [pump -> pipe ->] [decompressor -> pipe ->] QEMU

QEMU's ``completed`` is not the end of a pipe: the end is the end of the stream, every process
exited 0, and the exact length in the image.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import typing as t

from ._errors import VmfleetError
from ._saveimage._compressors import Compressor, find_program
from ._saveimage._prefix import read_prefix
from ._saveimage._pump import open_again, pump_in, pump_out, widen_pipe
from ._saveimage._sample import StreamSample, sample_all, sample_head
from ._saveimage._stream import StreamHead, read_stream_head
from ._saveimage._verify import Structure, verify_decoded

_STDERR_BYTES = 2000
_END_SECONDS = 10.0


class ProgramFailed(VmfleetError):
    """A compressor or decompressor did not exit 0."""


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    widen_pipe(writer)
    return reader, writer


class _Program:
    """One running compressor or decompressor."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self._said = asyncio.ensure_future(self._read_stderr())

    @classmethod
    async def start(
        cls,
        compressor: Compressor,
        arguments: t.Sequence[str],
        stdin: int,
        stdout: int,
        ours: t.Sequence[int],
    ) -> _Program:
        """Takes ``stdin`` and ``stdout`` over; ``ours`` is closed too if it does not start."""
        try:
            process = await asyncio.create_subprocess_exec(
                find_program(compressor),
                *arguments,
                stdin=stdin,
                stdout=stdout,
                stderr=asyncio.subprocess.PIPE,
            )
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        return cls(compressor.program, process)

    async def _read_stderr(self) -> str:
        if self._process.stderr is None:
            return ""
        data = await self._process.stderr.read()
        return data[-_STDERR_BYTES:].decode("utf-8", "replace").strip()

    async def check(self) -> None:
        """Wait for its end; raises `ProgramFailed` with its own words unless it exited 0."""
        status = await self._process.wait()
        said = await self._said
        if status != 0:
            how = f"was killed by signal {-status}" if status < 0 else f"exited {status}"
            raise ProgramFailed(
                f"{self._name} {how}" + (f" and said: {said}." if said else "."),
                program=self._name,
                exit_status=status,
            )

    async def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._said


class Pipeline:
    """One direction of bytes under way. ``qemu_fd`` is QEMU's end; close it with `release` as soon
    as QEMU has its own copy."""

    def __init__(
        self,
        qemu_fd: int,
        program: _Program | None,
        pump: asyncio.Future[int] | None,
    ) -> None:
        self.qemu_fd = qemu_fd
        self._program = program
        self._pump = pump
        self._released = False

    @classmethod
    async def into_image(
        cls,
        image_fd: int,
        path: str,
        offset_bytes: int,
        compressor: Compressor | None,
        *,
        direct: bool,
    ) -> Pipeline:
        """From QEMU into the image, at ``offset_bytes``."""
        loop = asyncio.get_running_loop()
        reader, qemu_fd = _pipe()
        program = None
        if compressor is not None:
            stream, (reader, packed) = reader, _pipe()
            program = await _Program.start(
                compressor, compressor.compress, stream, packed, (reader, qemu_fd)
            )
        pump = loop.run_in_executor(
            None, lambda: pump_in(reader, image_fd, path, offset_bytes, direct=direct)
        )
        return cls(qemu_fd, program, pump)

    @classmethod
    async def from_image(
        cls,
        image_fd: int,
        path: str,
        offset_bytes: int,
        compressor: Compressor | None,
        *,
        direct: bool,
    ) -> Pipeline:
        """From the image, at ``offset_bytes``, into QEMU."""
        loop = asyncio.get_running_loop()
        qemu_fd, feed = _pipe()
        program = None
        if compressor is not None:
            unpacked, (packed, feed) = feed, _pipe()
            program = await _Program.start(
                compressor, compressor.decompress, packed, unpacked, (qemu_fd, feed)
            )
        pump = loop.run_in_executor(
            None, lambda: pump_out(image_fd, feed, path, offset_bytes, direct=direct)
        )
        return cls(qemu_fd, program, pump)

    def release(self) -> None:
        """Close our copy of QEMU's end; without this the stream would never end."""
        if not self._released:
            os.close(self.qemu_fd)
            self._released = True

    async def finish(self) -> None:
        """Wait for the end of the stream. Raises `ProgramFailed` or `StoreError`."""
        self.release()
        try:
            if self._program is not None:
                await self._program.check()
        except ProgramFailed:
            # A full store breaks the compressor's pipe: the pump's failure is the cause then.
            if self._pump is not None:
                await self._pump
            raise
        if self._pump is not None:
            await self._pump

    async def abort(self) -> None:
        """End everything; whoever still writes or reads sees a broken pipe."""
        self.release()
        if self._program is not None:
            await self._program.kill()
        if self._pump is not None:
            with contextlib.suppress(VmfleetError):
                await asyncio.wait_for(asyncio.shield(self._pump), _END_SECONDS)

    async def raise_failure(self) -> None:
        """Raise why the bytes stopped, after QEMU found the pipe broken; returns when it was not
        this end. The pump's failure comes first: it is what breaks a compressor's pipe."""
        self.release()
        if self._pump is not None:
            await asyncio.wait_for(asyncio.shield(self._pump), _END_SECONDS)
        if self._program is not None:
            await asyncio.wait_for(self._program.check(), _END_SECONDS)


async def decode_and_verify(image_fd: int, path: str, compressor: Compressor) -> Structure:
    """Decode a compressed image to its end marker and walk what comes out.

    Raises `ProgramFailed` when the decompressor is not content, `ImageInvalid` when the stream is
    not whole.
    """
    sample = await _decode(image_fd, path, compressor, sample_all)
    try:
        return verify_decoded(image_fd, path, sample)
    finally:
        os.close(sample.fd)


async def decode_head(image_fd: int, path: str, compressor: Compressor) -> StreamHead:
    """Decode only as far as machine and RAM blocks are named. Raises as `decode_and_verify`."""
    sample = await _decode(image_fd, path, compressor, sample_head)
    try:
        return read_stream_head(sample.fd, f"{path}, decoded", 0, sample.length_bytes)
    finally:
        os.close(sample.fd)


async def _decode(
    image_fd: int,
    path: str,
    compressor: Compressor,
    sampler: t.Callable[[int], StreamSample],
) -> StreamSample:
    offset_bytes = read_prefix(image_fd, path).header.data_offset_bytes
    source = open_again(image_fd, os.O_RDONLY)
    os.lseek(source, offset_bytes, os.SEEK_SET)
    reader, writer = _pipe()
    program = await _Program.start(compressor, compressor.decompress, source, writer, (reader,))
    loop = asyncio.get_running_loop()
    try:
        sample = await loop.run_in_executor(None, lambda: sampler(reader))
        if sampler is sample_all:
            try:
                await program.check()
            except BaseException:
                os.close(sample.fd)
                raise
        return sample
    finally:
        await program.kill()
        os.close(reader)
