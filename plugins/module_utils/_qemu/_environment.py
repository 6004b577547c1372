# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: no stable interface.
"""Which environment variables of a QEMU are recorded, and why.

What QEMU 10.0 and the libraries it loads ask for, seen by counting their getenv calls and in their
sources. Everything else may be a secret of whoever started it and is neither recorded nor given to
the QEMU of a restore; nor is a name here that looks like one's.
"""

from __future__ import annotations

import fnmatch
import re
import typing as t

# Names, * for any end, and what they decide.
RECORDED: tuple[tuple[str, str], ...] = (
    ("QEMU_* SLIRP_DEBUG", "QEMU itself: where its modules lie, and in old ones the sound driver"),
    ("PATH", "finds network scripts, the bridge helper and the programs of exec: migration"),
    ("TMPDIR", "holds the overlays of -snapshot and of vvfat"),
    ("HOME USER LOGNAME", "where libraries keep settings, and whom the ssh driver logs in as"),
    ("XDG_*", "sockets of the desktop's services, and settings of libraries"),
    ("TZ TZDIR", "the guest's clock with -rtc base=localtime"),
    ("LANG LANGUAGE LC_*", "the keyboard's and the window's words"),
    ("LD_* GLIBC_TUNABLES MALLOC_*", "which libraries are loaded, and how memory is taken"),
    ("DISPLAY XAUTHORITY WAYLAND_* DBUS_*_BUS_ADDRESS", "windows and D-Bus displays"),
    ("SDL_* GDK_* GTK_* G_* GIO_* TERM TERMINFO NCURSES_*", "how a window or terminal is drawn"),
    ("PIXMAN_DISABLE SPICE_*", "how the screen is drawn and sent"),
    ("MESA_* LIBGL_* EGL_* __EGL_* __GLX_* GBM_* VK_* DRI_PRIME GALLIUM_*", "OpenGL's drivers"),
    ("VIRGL_* VREND_*", "what virtio-gpu offers to the guest"),
    ("PULSE_* PIPEWIRE_* ALSA_* JACK_*", "the sound server"),
    ("http_proxy https_proxy ftp_proxy all_proxy no_proxy", "disks over HTTP (libcurl)"),
    ("HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY", "the same; libcurl never reads HTTP_PROXY"),
    ("RES_OPTIONS LOCALDOMAIN HOSTALIASES", "how names of hosts are resolved"),
    ("CEPH_ARGS CEPH_CONF CEPH_KEYRING CEPH_LIB", "how RBD disks are reached (librados)"),
    ("SSL_CERT_FILE SSL_CERT_DIR OPENSSL_* GNUTLS_* P11_KIT_*", "what TLS trusts and allows"),
    (
        "SASL_* KRB5_* KRB5CCNAME",
        "how clients and servers prove who they are",
    ),
    ("NETTLE_FAT_OVERRIDE PMEM_* IBV_* RDMAV_*", "which code paths serve ciphers, pmem and RDMA"),
    ("LIBUSB_*", "how host USB devices are reached"),
)
_SECRET = re.compile("PASS|SECRET|TOKEN|CREDENTIAL", re.IGNORECASE)
_MATTERS = re.compile(
    "|".join(fnmatch.translate(name) for names, _reason in RECORDED for name in names.split())
)


def matters(name: str) -> bool:
    """Whether a variable is recorded, and given back."""
    return _MATTERS.match(name) is not None and _SECRET.search(name) is None


def what_matters(environment: t.Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that is recorded."""
    return {name: value for name, value in environment.items() if matters(name)}
