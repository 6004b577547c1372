# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU 10.0.2 answers when it was just started."""

from __future__ import annotations

import typing as t

CAPABILITIES: t.Mapping[str, bool] = dict.fromkeys(
    [
        "xbzrle",
        "rdma-pin-all",
        "auto-converge",
        "zero-blocks",
        "events",
        "postcopy-ram",
        "x-colo",
        "release-ram",
        "return-path",
        "pause-before-switchover",
        "multifd",
        "dirty-bitmaps",
        "postcopy-blocktime",
        "late-block-activate",
        "x-ignore-shared",
        "validate-uuid",
        "background-snapshot",
        "zero-copy-send",
        "postcopy-preempt",
        "switchover-ack",
        "dirty-limit",
        "mapped-ram",
    ],
    False,
)
PARAMETERS: t.Mapping[str, t.Any] = {
    "announce-initial": 50,
    "announce-max": 550,
    "announce-rounds": 5,
    "announce-step": 100,
    "avail-switchover-bandwidth": 0,
    "cpu-throttle-increment": 10,
    "cpu-throttle-initial": 20,
    "cpu-throttle-tailslow": False,
    "direct-io": False,
    "downtime-limit": 300,
    "max-bandwidth": 134217728,
    "max-cpu-throttle": 99,
    "max-postcopy-bandwidth": 0,
    "mode": "normal",
    "multifd-channels": 2,
    "multifd-compression": "none",
    "multifd-qatzip-level": 1,
    "multifd-zlib-level": 1,
    "multifd-zstd-level": 1,
    "throttle-trigger-threshold": 50,
    "tls-authz": "",
    "tls-creds": "",
    "tls-hostname": "",
    "vcpu-dirty-limit": 1,
    "x-checkpoint-delay": 20000,
    "x-vcpu-dirty-limit-period": 1000,
    "xbzrle-cache-size": 67108864,
    "zero-page-detection": "multifd",
}

INFO_RAMBLOCK = (
    "              Block Name    PSize              Offset               Used"
    "              Total                HVA  RO\r\n"
    "                  pc.ram    4 KiB  0x0000000000000000 0x0000000004000000"
    " 0x0000000004000000 0x00007fa4cfe00000  rw\r\n"
    "    /rom@etc/acpi/tables    4 KiB  0x0000000004080000 0x0000000000020000"
    " 0x0000000000200000 0x00007fa4e0800000  ro\r\n"
)
# query-qmp-schema, as far as anyone asks: migrate-incoming has exit-on-error.
SCHEMA: list[dict[str, t.Any]] = [
    {"name": "migrate-incoming", "meta-type": "command", "arg-type": "1", "ret-type": "0"},
    {"name": "0", "meta-type": "object", "members": []},
    {
        "name": "1",
        "meta-type": "object",
        "members": [{"name": "uri", "type": "str"}, {"name": "exit-on-error", "type": "bool"}],
    },
]
