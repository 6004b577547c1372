# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores that take root for somebody else: what the operator is told."""

from __future__ import annotations

import errno
import os

import pytest

from ansible_collections.vmfleet.suspend.plugins.module_utils._errors import Refused
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage import _squash
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._lock import lock_image
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._publish import (
    check_target,
)
from ansible_collections.vmfleet.suspend.plugins.module_utils._saveimage._store_kind import Mount

NFS = Mount("nfs4", "filer:/images", "0:48")


@pytest.fixture
def on_nfs(monkeypatch, tmp_path):
    """Root meets a store that denies it everything; it looks like NFS."""
    monkeypatch.setattr(_squash, "mount_of", lambda _fd: NFS)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def denied(*_arguments, **_options):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_save_into_it_says_what_to_do(on_nfs, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    with pytest.raises(Refused, match=r"not writable.*filer:/images.*become_user.*no_root_squash"):
        check_target(str(on_nfs / "a.save"))
    assert os.listdir(on_nfs) == []


def test_a_restore_from_it_says_what_to_do(on_nfs, monkeypatch):
    path = on_nfs / "a.save"
    path.write_bytes(b"image")
    really_open = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda at, flags, *rest: (really_open if flags & os.O_PATH else denied)(at, flags),
    )
    with pytest.raises(Refused, match=f"cannot be opened: Permission denied.*user {os.getuid()}"):
        lock_image(str(path), write=False)


def test_the_first_directory_that_can_be_looked_at_tells_whose_it_is(on_nfs):
    assert f"user {os.getuid()} (become_user)" in _squash.advice_for(str(on_nfs / "a/b/c.save"))


def test_on_a_store_of_this_host_the_refusal_stands_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert _squash.advice_for(str(tmp_path)) == ""
