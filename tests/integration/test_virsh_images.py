# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that virsh wrote, described by the collection and restored over QMP."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.tests.support.drive import bring_back, goes_on, image_info
from ansible_collections.vmfleet.suspend.tests.support.kinds import needs_program

FORMATS = {
    "raw": (),
    "raw past the cache": ("--bypass-cache",),
    "gzip": (),
    "bzip2": (),
    "xz": (),
    "lzop": (),
    "zstd": (),
    "sparse": ("--parallel-channels", 1),
    "sparse over two channels": ("--parallel-channels", 2),
    "sparse past the cache": ("--parallel-channels", 2, "--bypass-cache"),
}


REPRESENTATIVE = {
    ("zstd", "eager"),
    ("sparse over two channels", "eager"),
    ("sparse over two channels", "lazy"),
}


def cells():
    """Every kind is read; those of format sparse can be mapped as well."""
    for kind in FORMATS:
        for load in ("eager", "lazy") if kind.startswith("sparse") else ("eager",):
            marks = () if (kind, load) in REPRESENTATIVE else (pytest.mark.full,)
            yield pytest.param(kind, load, marks=marks, id=f"{kind}-{load}".replace(" ", "-"))


@pytest.mark.parametrize(("kind", "load"), list(cells()))
def test_a_domain_that_virsh_saved_comes_back_over_qmp(libvirt_host, domain, store, kind, load):
    image_format = kind.split()[0]
    needs_program(image_format)
    argv, path = domain.bare_argv(), store / "domain.save"
    libvirt_host.virsh("save", domain.name, path, "--image-format", image_format, *FORMATS[kind])
    info = image_info(path)
    assert (info["state"], info["name"], info["uuid"]) == ("ready", domain.name, domain.uuid)
    assert (info["version"], info["image_format"]) == (2, image_format)
    assert info["layout"] == ("mapped-ram" if image_format == "sparse" else "sequential")
    assert (info["problems"], info["recorded"], info["was_running"]) == ([], False, True)
    options = {"argv": tuple(argv), "qmp_socket": domain.qmp_socket, "load": load}
    result = bring_back(path, **options)
    assert (result["guest"]["state"], result["plan"]["load"]) == ("running", load)
    assert goes_on(domain)
    assert bring_back(path, **options)["changed"] is False
    assert image_info(path)["state"] == "spent"
    with pytest.raises(AssertionError, match="save image is incomplete"):
        libvirt_host.virsh("restore", path)  # its guest has run since
