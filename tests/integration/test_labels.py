# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of real guests whose QEMU looks as if SELinux confined it: real labels on real files.

No policy decides here: a QEMU that is really confined was not at hand (docs, security).
"""

from __future__ import annotations

import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._restore import _load
from ansible_collections.vmfleet.suspend.plugins.module_utils._save import _domain_report, _steps
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._verify import (
    verify_structure,
)
from ansible_collections.vmfleet.suspend.tests.support.drive import (
    bring_back,
    do_restore,
    do_save,
    goes_on,
)
from ansible_collections.vmfleet.suspend.tests.support.kinds import KINDS, needs_program
from ansible_collections.vmfleet.suspend.tests.support.labels import (
    IMAGE_LABEL,
    STORE_LABEL,
    confine,
    label_of,
    needs_labels,
    set_label,
)
from ansible_collections.vmfleet.suspend.tests.support.libvirt_drive import (
    restore_by_libvirt,
    save_by_libvirt,
)


@pytest.fixture
def confined(monkeypatch, store):
    needs_labels(store)
    confine(monkeypatch)


@pytest.fixture
def handed_over(monkeypatch):
    """Label and mode of each file that QEMU got, when it did."""
    seen = []
    for module in (_steps, _load):
        really_hand_over = module.hand_over

        async def noting(monitor, fd, *rest, really_hand_over=really_hand_over, **options):
            seen.append((label_of(f"/proc/self/fd/{fd}"), os.fstat(fd).st_mode & 0o7777))
            return await really_hand_over(monitor, fd, *rest, **options)

        monkeypatch.setattr(module, "hand_over", noting)
    return seen


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("v3", {"parallel_channels": 2, "bypass_cache": True}),
        ("v2-raw", {}),
        pytest.param("v2-raw", {"bypass_cache": True}, marks=pytest.mark.full),
        pytest.param("v2-zstd", {}, marks=pytest.mark.full),
    ],
)
def test_an_image_carries_its_guests_label_only_while_qemu_uses_it(
    ran, store, confined, handed_over, kind, options
):
    needs_program(KINDS[kind].get("image_format", "raw"))
    guest, path = ran(), store / "guest.save"
    do_save(guest.qmp_socket, path, **KINDS[kind], **options)
    assert label_of(path) == ""
    set_label(path, STORE_LABEL)
    guest.start(incoming=True)
    loading = {name: value for name, value in options.items() if name == "bypass_cache"}
    do_restore(guest.qmp_socket, path, **loading)
    assert handed_over == [(IMAGE_LABEL, 0o600)] * 2
    assert label_of(path) == STORE_LABEL
    assert goes_on(guest)


def test_an_image_that_is_mapped_is_never_labelled_and_what_is_handed_over_is(
    ran, store, confined, handed_over
):
    """QEMU opened it by its name when it started; the rest comes from a file in memory."""
    guest, path = ran(), store / "guest.save"
    do_save(guest.qmp_socket, path)
    set_label(path, STORE_LABEL)
    bring_back(path, load="lazy", prefetch="none")
    assert [label for label, _mode in handed_over] == [IMAGE_LABEL] * 2
    assert label_of(path) == STORE_LABEL
    assert goes_on(guest)


def test_the_label_that_libvirt_leaves_on_an_image_is_taken_off(domain, store, monkeypatch):
    needs_labels(store)
    path, partial = store / "domain.save", store / ".domain.save.partial"

    def as_libvirt_leaves_it(fd, where):
        set_label(partial, IMAGE_LABEL)
        return verify_structure(fd, where)

    monkeypatch.setattr(_domain_report, "verify_structure", as_libvirt_leaves_it)
    save_by_libvirt(domain, path)
    assert (label_of(path), path.stat().st_mode & 0o7777) == ("", 0o600)
    restore_by_libvirt(domain, path)
    domain.wait_passes(2)
    assert domain.mismatches == []
