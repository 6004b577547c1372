#!/usr/bin/env bash
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Fetch what the Linux guest of the integration tests boots, Debian's kernel and a static busybox,
# into .build/linux-guest. Nothing is installed, and root is not needed. What was fetched stays
# until `make clean`; its file `packages` names the versions. Exit status: 3 where this machine
# cannot have them, 1 where fetching them failed.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022

. tools/setup/say.sh

readonly DIRECTORY=.build/linux-guest
readonly CANNOT_BE_HAD=3
# The first that apt knows. The cloud kernel is a third as large, and all that is needed is built in.
readonly KERNELS="linux-image-cloud-amd64 linux-image-amd64"
readonly BUSYBOX=busybox-static

# apt's own words, shown only when it fails in the end.
readonly LOG=$PWD/.build/linux-guest.log
# A machine's lists may be missing or outdated, and only root can fetch them. Its sources and keys
# serve everyone, so these are lists of our own. The packages are read by nobody but us: apt need
# not change its user for the download.
apt_options=(-o APT::Sandbox::User=root)
readonly OWN_LISTS=(-o Dir::State::Lists="$PWD/.build/apt/lists" -o Dir::Cache="$PWD/.build/apt/cache")

main() {
    [ ! -e "$DIRECTORY/packages" ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "A Linux guest needs Debian's packages of a kernel and of $BUSYBOX: there is no apt here." >&2
        exit "$CANNOT_BE_HAD"
    fi
    mkdir -p .build
    exec 9>.build/linux-guest.lock
    flock 9
    [ ! -e "$DIRECTORY/packages" ] || return 0

    rm -rf "$DIRECTORY" "$DIRECTORY.new"
    mkdir "$DIRECTORY.new"
    say "Fetching a Linux kernel and $BUSYBOX (about 30 MB) into $DIRECTORY; nothing is installed."
    download "$DIRECTORY.new" 2>"$LOG" || download_with_own_lists "$DIRECTORY.new"
    unpack "$DIRECTORY.new"
    mv "$DIRECTORY.new" "$DIRECTORY"
}

# Fails also where apt's lists do not know the packages, or know versions that are gone.
download() { # DIRECTORY
    local kernel
    kernel=$(kernel_package)
    [ -n "$kernel" ] && (cd "$1" && apt-get -qq "${apt_options[@]}" download "$kernel" "$BUSYBOX")
}

# The package with the kernel in it, which those in KERNELS only depend on.
kernel_package() {
    local name
    for name in $KERNELS; do
        apt-cache "${apt_options[@]}" depends "$name" || true
    done | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ && !found {print $2; found = 1}'
}

download_with_own_lists() { # DIRECTORY
    apt_options+=("${OWN_LISTS[@]}")
    mkdir -p .build/apt/lists/partial .build/apt/cache/archives/partial
    # One bad source among good ones is no obstacle where the packages come all the same.
    if apt-get -qq "${apt_options[@]}" -o APT::Update::Error-Mode=any update 2>>"$LOG" &&
        [ -z "$(kernel_package 2>>"$LOG")" ]; then
        say "A Linux guest needs Debian's kernel: apt's sources have none of $KERNELS." >&2
        exit "$CANNOT_BE_HAD"
    fi
    rm -f "$1"/*.deb # of other versions, where only one of the two could be had
    download "$1" 2>>"$LOG" ||
        refuse "The packages of the Linux guest could not be downloaded. apt's words:" "$(tail -n 20 "$LOG")"
}

# The two programs, and only they, are kept.
unpack() { # DIRECTORY
    local package
    for package in "$1"/*.deb; do
        dpkg-deb -x "$package" "$1/root"
        dpkg-deb -W "$package" >>"$1/names"
    done
    mv "$1"/root/boot/vmlinuz-* "$1/vmlinuz"
    mv "$(find "$1/root" -path '*/bin/busybox' -type f)" "$1/" # in usr/bin since Debian 13
    rm -r "$1/root" "$1"/*.deb
    mv "$1/names" "$1/packages"
}

main
