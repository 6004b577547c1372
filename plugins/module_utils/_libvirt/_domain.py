# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""What libvirt tells of one domain, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

# virDomainState (libvirt include/libvirt/libvirt-domain.h), in the words that virsh shows.
STATES = (
    "no state",
    "running",
    "running",  # VIR_DOMAIN_BLOCKED: idle, as only other hypervisors tell it apart
    "paused",
    "shutdown",
    "shutoff",
    "crashed",
    "pmsuspended",
)


# virDomainShutoffReason.
OFF_BECAUSE = (
    "unknown",
    "shut down",
    "destroyed",
    "crashed",
    "migrated",
    "saved",
    "failed",
    "from a snapshot",
    "the daemon",
)
LOST = ("crashed", "failed")


@dataclass(frozen=True)
class Domain:
    """One look at a domain. ``state``: one of `STATES`, ``shutoff`` when inactive; ``starting``:
    its QEMU is there and does not hold the guest yet; ``held_to_save``: libvirt paused it for a
    save, and lets it go on when that comes to nothing; ``job``: a job of libvirt's runs on it;
    ``memory_bytes``: the most RAM it can have; ``autostart_once``: libvirt starts it with the next
    start of the host alone; ``off_because``: libvirt's word for why it is inactive, of
    `OFF_BECAUSE`, for messages and never for decisions (a restart of the daemon forgets it)."""

    name: str
    uuid: str
    state: str
    persistent: bool
    autostart: bool
    has_managed_save: bool
    memory_bytes: int
    starting: bool = False
    held_to_save: bool = False
    job: bool = False
    autostart_once: bool = False
    off_because: str = "unknown"

    @property
    def active(self) -> bool:
        """Whether a QEMU holds it, or is about to."""
        return self.state not in ("no state", "shutoff")

    @property
    def kind(self) -> str:
        return "persistent" if self.persistent else "transient"


def whereabouts(domain: Domain | None) -> str:
    """Where the guest of a domain is that no QEMU holds and that we did not save: no more than is
    known."""
    if domain is None:
        return "No QEMU holds it, and libvirt does not know it any more."
    if domain.has_managed_save:
        return "Somebody else saved it meanwhile: libvirt holds it in a managed save."
    if domain.off_because in LOST:
        return "Its QEMU has ended, and its RAM is lost; the domain was not saved."
    if domain.off_because == "saved":
        return "Somebody else saved it meanwhile, into a file of their own."
    why = f"libvirt says: {domain.off_because}"
    return f"No QEMU holds it any more ({why}), and it was not saved here."


def names(domain: Domain, name_or_uuid: str) -> bool:
    """Whether a name or UUID, as an operator writes it, means this domain."""
    return name_or_uuid == domain.name or name_or_uuid.lower() == domain.uuid
