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

    def _pids(self) -> list[int]:
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"qemu-system" in words[0] and str(self.uuid).encode() in words:
                found.append(int(pid))
        return found
