# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tiny guest as a domain of libvirt's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from ansible_collections.vmfleet.suspend.tests.support.guest import TinyGuest
from ansible_collections.vmfleet.suspend.tests.support.libvirt_host import LibvirtHost

# What libvirt adds for itself, with a descriptor or a file of its own behind it.
_LIBVIRTS_OWN = {"-S": 0, "-add-fd": 1, "-sandbox": 1, "-mon": 1}
_XML = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  <features><acpi/></features>
  <on_reboot>destroy</on_reboot>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
      <readonly/>
    </disk>
    <controller type='usb' model='none'/>
    <serial type='file'>
      <source path='{serial}' append='on'/>
      <target port='0'/>
    </serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


class LibvirtTinyGuest(TinyGuest):
    """A domain that libvirt starts; the guest in it is told apart by its UUID."""

    def __init__(self, tmp_path: Path, host: LibvirtHost, *arguments: Any, **options: Any) -> None:
        super().__init__(tmp_path, *arguments, **options)
        self.host = host

    def domain_xml(self) -> str:
        """What libvirt is told."""
        return _XML.format(
            name=self.name,
            uuid=self.uuid,
            memory_mib=self.memory_mib,
            machine=self.machine,
            disk=self.disk_path,
            serial=self.serial_path,
        )

    def start(self, incoming: bool = False) -> Self:
        """Define the domain and start it."""
        assert not incoming, "libvirt starts the QEMU that it restores into"
        self.host.define(self.domain_xml())
        self.host.virsh("start", self.name)
        return self

    def status(self) -> str:
        """The run state, as libvirt has it, or QEMU, where it is no longer libvirt's."""
        state = self.host.virsh("domstate", self.name).strip()
        return super().status() if state == "shut off" else state

    def close(self) -> None:
        """As everywhere, and until libvirt has noticed, which else refuses the next of its name."""
        super().close()
        self._wait(lambda: self.name not in self.host.virsh("list", "--name").split(), 20, "end")

    def bare_argv(self) -> list[str]:
        """The command line of the domain's QEMU, made one that anybody can run."""
        words = Path(f"/proc/{self.pid}/cmdline").read_text("utf-8").split("\0")[:-1]
        kept, position = [], 0
        while position < len(words):
            word = words[position]
            value = words[position + 1] if position + 1 < len(words) else ""
            if word in _LIBVIRTS_OWN:
                position += 1 + _LIBVIRTS_OWN[word]
            elif (word == "-object" and "masterKey0" in value) or "charmonitor" in value:
                position += 2
            elif word == "-chardev" and "charserial0" in value:
                kept += [word, f"file,id=charserial0,path={self.serial_path},append=on"]
                position += 2
            else:
                kept.append(word)
                position += 1
        return kept

    def _pids(self) -> list[int]:
        return pids_of_domain(str(self.uuid))


def pids_of_domain(uuid: str) -> list[int]:
    """Of the processes that run a domain: one, or none."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"qemu-system" in words[0] and uuid.encode() in words:
            found.append(int(pid))
    return found
