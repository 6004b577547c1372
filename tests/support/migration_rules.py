# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules by which QEMU 10.0.2 takes new migration settings.

The rules were tried against the real one; a test of the unit tests' own holds the two together.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.vmfleet.suspend.tests.support.qmp_command import QmpFailure

# (capability, what it does not go with, QEMU's words), in the order QEMU checks them.
_INCOMPATIBLE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("postcopy-ram", ("x-ignore-shared",), "Postcopy is not compatible with ignore-shared"),
    ("postcopy-ram", ("multifd",), "Postcopy is not yet compatible with multifd"),
    (
        "background-snapshot",
        (
            "postcopy-ram",
            "dirty-bitmaps",
            "postcopy-blocktime",
            "late-block-activate",
            "return-path",
            "multifd",
            "pause-before-switchover",
            "auto-converge",
            "release-ram",
            "rdma-pin-all",
            "xbzrle",
            "x-colo",
            "validate-uuid",
            "zero-copy-send",
        ),
        "Background-snapshot is not compatible with",
    ),
    ("multifd", ("xbzrle",), "Multifd is not compatible with xbzrle"),
    ("mapped-ram", ("xbzrle",), "Mapped-ram migration is incompatible with xbzrle"),
    ("mapped-ram", ("postcopy-ram",), "Mapped-ram migration is incompatible with postcopy"),
)
_ZERO_COPY = "Zero copy only available for non-compressed non-TLS multifd migration"
_MAPPED_RAM = "Mapped-ram only available for non-compressed non-TLS multifd migration"


@dataclass
class MigrationSettings:
    """Capabilities and parameters of one QEMU. Setters raise `QmpFailure` and change nothing."""

    capabilities: dict[str, bool]
    parameters: dict[str, t.Any]

    def set_capabilities(self, entries: t.Sequence[t.Mapping[str, t.Any]]) -> None:
        new = dict(self.capabilities)
        for entry in entries:
            if entry["capability"] not in new:
                _refuse(f"Parameter 'capability' does not accept value '{entry['capability']}'")
            new[entry["capability"]] = entry["state"]
        for capability, others, words in _INCOMPATIBLE:
            if new.get(capability) and any(new.get(other) for other in others):
                _refuse(words)
        if new.get("zero-copy-send") and (
            not new.get("multifd") or self._compresses_or_encrypts(self.parameters)
        ):
            _refuse(_ZERO_COPY)
        if new.get("postcopy-preempt") and not new.get("postcopy-ram"):
            _refuse("Postcopy preempt requires postcopy-ram")
        if new.get("switchover-ack") and not new.get("return-path"):
            _refuse("Capability 'switchover-ack' requires capability 'return-path'")
        self.capabilities = new

    def set_parameters(self, changes: t.Mapping[str, t.Any]) -> None:
        for name in changes:
            if name not in self.parameters:
                _refuse(f"Parameter '{name}' is unexpected")
        if not 1 <= changes.get("multifd-channels", 1) <= 255:
            _refuse("Parameter 'multifd_channels' expects a value between 1 and 255")
        new = {**self.parameters, **changes}
        if self.capabilities.get("zero-copy-send") and self._compresses_or_encrypts(new):
            _refuse(_ZERO_COPY)
        # The trap: QEMU looks at the values before the change, so what set it off was accepted
        # and nothing is accepted afterwards.
        if self.capabilities.get("mapped-ram") and self._compresses_or_encrypts(self.parameters):
            _refuse(_MAPPED_RAM)
        self.parameters = new

    def wants_direct_channels(self) -> bool:
        """direct-io counts only together with mapped-ram and multifd."""
        on = self.capabilities
        return bool(self.parameters.get("direct-io") and on["mapped-ram"] and on["multifd"])

    @staticmethod
    def _compresses_or_encrypts(parameters: t.Mapping[str, t.Any]) -> bool:
        return parameters.get("multifd-compression", "none") != "none" or bool(
            parameters.get("tls-creds")
        )


def _refuse(words: str) -> t.NoReturn:
    raise QmpFailure("GenericError", words)
