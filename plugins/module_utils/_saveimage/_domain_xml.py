# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""The libvirt domain description inside an image: made for guests that have none, read, redacted.

Source: libvirt docs/formatdomain, src/conf/schemas/domaincommon.rng.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
REDACTED = "REDACTED"
# What virsh says it cannot find when it is told to restore such an image.
NO_EMULATOR = "/saved/over/QMP/without/description/for/libvirt/use/vmfleet.suspend.qemu_restore"
UNREADABLE = "<!-- not shown: the domain description is not well-formed XML -->"

_SECRET_ATTRIBUTES = ("passwd", "password")
_DECLARATION = re.compile(r"<!(DOCTYPE|ENTITY)")
# Elements whose text, or a named attribute, may carry credentials.
_SECRET_TEXT = ("sysinfo", "launchSecurity", "cookies", "metadata", "cmdline")
_SECRET_VALUES = tuple(f"{{{QEMU_NAMESPACE}}}{tag}" for tag in ("arg", "env", "property"))
_DEEPEST = 100  # levels of elements; a domain has about ten
# Control characters that XML 1.0 has no way to write.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def minimal_domain_xml(
    *,
    name: str,
    uuid: str | None,
    memory_bytes: int,
    vcpus: int,
    arch: str,
    machine: str,
    accelerator: str,
) -> str:
    """A domain that libvirt's schema accepts, for a guest that libvirt does not know.

    ``accelerator`` is ``kvm`` or ``qemu`` (TCG). Devices are not described: the image is restored
    over QMP, and a reader sees whose it is. libvirt would make up devices and load the guest
    without its disks, if it fitted. The emulator's name keeps it from that, and virsh shows it.
    """
    domain = ElementTree.Element("domain", type=accelerator)
    ElementTree.SubElement(domain, "name").text = _NOT_XML.sub("?", name)
    if uuid is not None:
        ElementTree.SubElement(domain, "uuid").text = uuid
    ElementTree.SubElement(domain, "memory", unit="KiB").text = str(memory_bytes // 1024)
    ElementTree.SubElement(domain, "vcpu").text = str(vcpus)
    system = ElementTree.SubElement(domain, "os")
    ElementTree.SubElement(system, "type", arch=arch, machine=machine).text = "hvm"
    devices = ElementTree.SubElement(domain, "devices")
    ElementTree.SubElement(devices, "emulator").text = NO_EMULATOR
    return ElementTree.tostring(domain, encoding="unicode") + "\n"


def is_minimal(xml: str) -> bool:
    """Whether it is one of `minimal_domain_xml`, which libvirt cannot restore."""
    domain = parse(xml)
    return domain is not None and domain.findtext("devices/emulator") == NO_EMULATOR


def parse(xml: str) -> ElementTree.Element | None:
    """The outermost element; None for what is not well-formed, or declares entities."""
    # Declarations could make the parser expand entities without end; libvirt writes none.
    if _DECLARATION.search(xml):
        return None
    try:
        return ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError, RecursionError):
        return None


def identity(xml: str) -> tuple[str, str | None] | None:
    """Name and UUID (lower case, None where missing); None for what is no domain with a name."""
    domain = parse(xml)
    if domain is None or domain.tag != "domain":
        return None
    name = (domain.findtext("name") or "").strip()
    uuid = (domain.findtext("uuid") or "").strip().lower()
    return (name, uuid or None) if name else None


def redact(xml: str) -> str:
    """The description without what could be a secret: passwords, HTTP cookies, SMBIOS strings,
    launch secrets, metadata, the kernel's command line, QEMU's arguments, environment and
    overridden properties. Text that cannot be parsed is not shown at all."""
    domain = parse(xml)
    if domain is None or not _hide_secrets(domain, False, _DEEPEST):
        return UNREADABLE
    ElementTree.register_namespace("qemu", QEMU_NAMESPACE)
    return ElementTree.tostring(domain, encoding="unicode")


def _hide_secrets(element: ElementTree.Element, secret: bool, levels: int) -> bool:
    """Redact an element and what is in it; ``secret``: all text here is. False when it is nested
    more than ``levels`` deep."""
    if levels == 0:
        return False
    secret = secret or element.tag in _SECRET_TEXT
    if element.tag == "metadata":  # other programs' own: attributes there may be secrets too
        element.text = REDACTED if len(element) else element.text
        del element[:]
    for attribute in _SECRET_ATTRIBUTES:
        if attribute in element.attrib:
            element.set(attribute, REDACTED)
    if element.tag in _SECRET_VALUES and "value" in element.attrib:
        element.set("value", REDACTED)
    if secret and (element.text or "").strip():
        element.text = REDACTED
    for child in element:
        if secret and (child.tail or "").strip():
            child.tail = REDACTED
        if not _hide_secrets(child, secret, levels - 1):
            return False
    return True
