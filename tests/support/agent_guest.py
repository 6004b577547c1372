# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Linux guest with a real qemu-guest-agent, which tells its clock on the serial port."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ansible_collections.vmfleet.suspend.tests.support.cpio import Entry, directory, program
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import pids_of_domain
from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import LibvirtHost
from ansible_collections.vmfleet.suspend.tests.support.linux_guest import (
    BEFORE_FILLING,
    LinuxFiles,
    LinuxGuest,
)

_MEMORY_MIB = 160
_XML = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{words}</cmdline>
  </os>
  <devices>
    <controller type='usb' model='none'/>
    <serial type='file'>
      <source path='{serial}' append='on'/>
      <target port='0'/>
    </serial>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <memballoon model='none'/>
  </devices>
</domain>
"""
_LIBRARY = re.compile(r"(/\S+) \(0x")
# No fault in the guest but this program's end: it runs in place of the one that fills its memory.
_SCRIPT = """\
for module in $(ls /modules); do
    insmod "/modules/$module"
done
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
until [ -e /dev/vport*p1 ]; do sleep 0.1; done
qemu-ga --method=virtio-serial --path=$(ls /dev/vport*p1) --statedir=/run --pidfile=/run/pid &
while :; do
    echo "clock $(date +%s)"
    sleep 0.2
done
"""
# As slow as on machines whose clock has to be waited for.
_HWCLOCK = b"#!/bin/busybox sh\n/bin/busybox sleep 1\n"


class AgentGuest(LinuxGuest):
    """``agent_socket``: where QEMU listens for who talks to the agent."""

    def __init__(self, tmp_path: Path, files: LinuxFiles, *, name: str = "agent") -> None:
        super().__init__(tmp_path, files, _MEMORY_MIB, name=name)
        self.agent_socket = self.directory / "agent"
        chardev = f"socket,id=agent0,path={self.agent_socket},server=on,wait=off"
        self.extra = (
            *("-device", "virtio-serial-pci"),
            *("-chardev", chardev),
            *("-device", "virtserialport,chardev=agent0,name=org.qemu.guest_agent.0"),
        )

    def more_files(self) -> Sequence[Entry]:
        """The agent with this machine's libraries, the kernel's modules, and the script."""
        modules = [program(f"modules/{p.name}", p.read_bytes()) for p in self.files.modules]
        listed = subprocess.run(
            ["ldd", self.files.agent], capture_output=True, text=True, check=True
        ).stdout
        libraries = [Path(found) for found in _LIBRARY.findall(listed)]
        # The loader is named by its whole path, the others are looked for in /lib.
        places = {
            f"lib64/{path.name}" if path.parent.name == "lib64" else f"lib/{path.name}": path
            for path in libraries
        }
        return (
            *(directory(name) for name in ("lib", "lib64", "modules", "run", "sbin", "tmp")),
            *modules,
            *(program(name, path.read_bytes()) for name, path in places.items()),
            program("bin/qemu-ga", self.files.agent.read_bytes()),
            program("sbin/hwclock", _HWCLOCK),
            program(BEFORE_FILLING, _SCRIPT.encode()),
        )

    @property
    def clocks(self) -> list[int]:
        """What the guest's clock showed, in seconds since the epoch."""
        lines = self.serial_lines
        return [int(line.split()[1]) for line in lines if re.fullmatch(r"clock \d+\n", line)]

    def wait_clock(self, timeout_seconds: float = 90) -> float:
        """How far the guest's next clock is from the host's, in whole seconds."""
        seen = len(self.clocks)
        self._wait(lambda: len(self.clocks) > seen, timeout_seconds, "tell its clock")
        return self.clocks[-1] - time.time()


class AgentDomain(AgentGuest):
    """The same as a domain of libvirt's, which alone talks to its agent."""

    def __init__(self, tmp_path: Path, files: LinuxFiles, host: LibvirtHost) -> None:
        super().__init__(tmp_path, files)
        self.host = host

    def start(self, incoming: bool = False) -> Self:
        """Define the domain and start it."""
        assert not incoming, "libvirt starts the QEMU that it restores into"
        boots = dict(zip(*[iter(self.boot_arguments())] * 2, strict=True))
        self.host.define(
            _XML.format(
                name=self.name,
                uuid=self.uuid,
                memory_mib=self.memory_mib,
                kernel=boots["-kernel"],
                initrd=boots["-initrd"],
                words=boots["-append"],
                serial=self.serial_path,
            )
        )
        self.host.virsh("start", self.name)
        return self

    def _pids(self) -> list[int]:
        return pids_of_domain(str(self.uuid))
