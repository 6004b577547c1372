# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain with passwords in its XML and in its QEMU's words: no result and no log shows them."""

from __future__ import annotations

import json
import os
import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import VmfleetError
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    bring_back,
    do_save,
    goes_on,
    image_info,
)
from ansible_collections.vmfleet.suspend.tests.support.libvirt_drive import (
    restore_by_libvirt,
    save_by_libvirt,
)
from ansible_collections.vmfleet.suspend.tests.support.libvirt_guest import LibvirtTinyGuest

VNC = "vncpass8"
OBJECT = "hunter2hunter2"
SECRETS = (VNC, OBJECT)
ARGUMENT = f"secret,id=s0,data={OBJECT}"
ARGUMENTS = f"<qemu:arg value='-object'/><qemu:arg value='{ARGUMENT}'/>"
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"


class SecretiveGuest(LibvirtTinyGuest):
    """A tiny guest with a VNC server that wants a password, and a secret object."""

    def domain_xml(self) -> str:
        graphics = f"<graphics type='vnc' passwd='{VNC}'><listen type='socket'/></graphics>"
        return (
            super()
            .domain_xml()
            .replace("<domain ", f"<domain xmlns:qemu='{QEMU_NAMESPACE}' ")
            .replace("</devices>", f"{graphics}</devices>")
            .replace("</domain>", f"<qemu:commandline>{ARGUMENTS}</qemu:commandline></domain>")
        )


@pytest.fixture
def secretive(libvirt_host, tmp_path):
    guest = SecretiveGuest(tmp_path, libvirt_host)
    guest.start()
    guest.wait_passes(1)
    yield guest
    guest.close()
    libvirt_host.virsh("undefine", guest.name)


def assert_silent(text: str) -> None:
    assert [secret for secret in SECRETS if secret in text] == []


def ansible(name: str, *flags: str, **options: t.Any) -> str:
    """All that an ad-hoc run prints."""
    done = subprocess.run(
        [
            *("ansible", "localhost", "-vvv", "--diff", "-m", f"vmfleet.suspend.{name}"),
            *("-a", json.dumps(options, default=str)),
            *flags,
        ],
        env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def failure(run: t.Callable[..., t.Any], *arguments: t.Any, **options: t.Any) -> str:
    """Message and facts of the error that a run ends with."""
    with pytest.raises(VmfleetError) as failed:
        run(*arguments, **options)
    return json.dumps([failed.value.message, failed.value.facts], default=str)


def add_to_image(guest: LibvirtTinyGuest, path: Path, words: str) -> None:
    """Let libvirt give its QEMU more words when it restores this image."""
    xml = guest.host.virsh("save-image-dumpxml", "--security-info", path)
    changed = path.with_name("changed.xml")
    changed.write_text(xml.replace("</qemu:commandline>", f"{words}</qemu:commandline>"))
    guest.host.virsh("save-image-define", path, changed)
    changed.unlink()


def test_what_a_domain_keeps_secret_is_shown_nowhere(secretive, store):
    guest, path = secretive, store / "domain.save"
    place = {"domain": guest.name, "uri": guest.host.uri, "path": path}
    told = [ansible("qemu_save", "--check", **place), ansible("qemu_save", **place)]
    written = path.read_bytes()[: 1 << 20]
    assert all(secret.encode() in written for secret in SECRETS)  # it is the image that has them
    assert path.stat().st_mode & 0o7777 == 0o600
    told.append(ansible("qemu_saveimage_info", path=store, read_memory_map=True))
    assert "commandline" in told[-1]
    told += [ansible("qemu_restore", "--check", **place), ansible("qemu_restore", **place)]
    for text in told:
        assert "SUCCESS" in text or "CHANGED" in text
        assert_silent(text)
    guest.wait_passes(2)
    assert guest.mismatches == []


def test_over_qmp_no_result_shows_what_xml_and_command_line_hold(ran, store):
    guest, path = ran(extra=("-object", ARGUMENT)), store / "guest.save"
    xml = store / "guest.xml"
    xml.write_text(
        f"<domain type='qemu'><name>{guest.name}</name><uuid>{guest.uuid}</uuid><devices>"
        f"<graphics type='vnc' passwd='{VNC}'/></devices></domain>",
        "utf-8",
    )
    saving: dict[str, t.Any] = {"domain_xml_file": str(xml)}
    shown: list[object] = [do_save(guest.qmp_socket, path, check_mode=True, **saving)]
    shown.append(failure(do_save, guest.qmp_socket, path, timeout_seconds=1e-9, **saving))
    shown.append(do_save(guest.qmp_socket, path, **saving))
    assert all(secret.encode() in path.read_bytes()[: 1 << 20] for secret in SECRETS)
    shown += [image_info(path), bring_back(path, check_mode=True), bring_back(path)]
    assert_silent(json.dumps(shown, default=str))
    assert goes_on(guest)


def test_a_save_that_fails_shows_none_of_it(secretive, store):
    path = store / "domain.save"
    xml = store / "other.xml"
    xml.write_text(secretive.domain_xml().replace(">hvm<", ">xen<"), "utf-8")
    assert_silent(failure(save_by_libvirt, secretive, path, domain_xml_file=str(xml)))
    xml.write_text(secretive.domain_xml()[:-10], "utf-8")
    assert_silent(failure(save_by_libvirt, secretive, path, domain_xml_file=str(xml)))


def test_a_restore_that_qemu_refuses_in_its_own_words_shows_none_of_it(secretive, store):
    """QEMU repeats the word of its command line that it did not understand."""
    path = store / "domain.save"
    save_by_libvirt(secretive, path)
    add_to_image(secretive, path, ARGUMENTS)  # the same object again
    said = failure(restore_by_libvirt, secretive, path)
    assert "Duplicate ID 's0'" in said
    assert_silent(said)
    assert_silent(json.dumps(image_info(path)))
