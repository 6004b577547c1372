#!/usr/bin/env bash
# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Fetch what the Linux guest of the integration tests boots, Debian's kernel, a static busybox, QEMU's agent,
# into .build/linux-guest. Nothing is installed, and root is not needed. What was fetched stays
# until `make clean`, or until another layout is wanted; its file `packages` names the layout and
# the versions. Exit status: 3 where this machine cannot have them, 1 where fetching them failed.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022

. tools/setup/say.sh

readonly DIRECTORY=.build/linux-guest
# The first line of `packages`. Whoever changes what lies in the directory changes it too.
readonly LAYOUT="layout 3: vmlinuz, busybox, qemu-ga, modules"
readonly CANNOT_BE_HAD=3
# The first that apt knows; the cloud kernel is a third as large.
readonly KERNELS="linux-image-cloud-amd64 linux-image-amd64"
readonly BUSYBOX=busybox-static
# Its libraries are the machine's own: QEMU needs them, too.
readonly AGENT=qemu-guest-agent
# What a disk with ext4 needs, each after those that it depends on. Which of them a kernel has built
# in differs: Linux 6.1's cloud kernel has ext4, 6.12's also virtio, 6.1's ordinary kernel neither.
readonly MODULES="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk
    crc32c_generic crc16 mbcache jbd2 ext4 virtio_console"

# apt's own words, shown only when it fails in the end.
readonly LOG=$PWD/.build/linux-guest.log
# A machine's lists may be missing or outdated, and only root can fetch them. Its sources and keys
# serve everyone, so these are lists of our own. The packages are read by nobody but us: apt need
# not change its user for the download.
apt_options=(-o APT::Sandbox::User=root)
readonly OWN_LISTS=(-o Dir::State::Lists="$PWD/.build/apt/lists" -o Dir::Cache="$PWD/.build/apt/cache")

main() {
    ! is_there || return 0
    if ! command -v apt-get >/dev/null; then
        say "A Linux guest needs Debian's packages of a kernel and of $BUSYBOX: there is no apt here." >&2
        exit "$CANNOT_BE_HAD"
    fi
    mkdir -p .build
    exec 9>.build/linux-guest.lock
    flock 9
    ! is_there || return 0

    rm -rf "$DIRECTORY.new"
    mkdir "$DIRECTORY.new"
    say "Fetching a Linux kernel, $BUSYBOX and $AGENT (about 30 MB) into $DIRECTORY; nothing is installed."
    download "$DIRECTORY.new" 2>"$LOG" || download_with_own_lists "$DIRECTORY.new"
    unpack "$DIRECTORY.new"
    rm -rf "$DIRECTORY" # of another layout, or left by a run that was killed
    mv "$DIRECTORY.new" "$DIRECTORY"
}

is_there() {
    local layout=""
    [ ! -e "$DIRECTORY/packages" ] || read -r layout <"$DIRECTORY/packages"
    [ "$layout" = "$LAYOUT" ]
}

# Fails also where apt's lists do not know the packages, or know versions that are gone.
download() { # DIRECTORY
    local kernel
    kernel=$(kernel_package)
    [ -n "$kernel" ] && (cd "$1" && apt-get -qq "${apt_options[@]}" download "$kernel" "$BUSYBOX" "$AGENT")
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

# The programs and the modules, and only they, are kept.
unpack() { # DIRECTORY
    local package
    say "$LAYOUT" >"$1/names"
    for package in "$1"/*.deb; do
        dpkg-deb -x "$package" "$1/root"
        dpkg-deb -W "$package" >>"$1/names"
    done
    mv "$1"/root/boot/vmlinuz-* "$1/vmlinuz"
    mv "$(find "$1/root" -path '*/bin/busybox' -type f)" "$1/" # in usr/bin since Debian 13
    mv "$(find "$1/root" -path '*bin/qemu-ga' -type f)" "$1/"
    keep_modules "$1"
    rm -r "$1/root" "$1"/*.deb
    mv "$1/names" "$1/packages"
}

# Their names begin with numbers: the order to load them in.
keep_modules() { # DIRECTORY
    local name file kept number=10
    mkdir "$1/modules"
    for name in $MODULES; do
        number=$((number + 1))
        file=$(find "$1/root" -name "$name.ko" -o -name "$name.ko.xz")
        [ -n "$file" ] || continue # built in
        kept=$1/modules/$number-$name.ko
        case $file in
            *.xz) "$1/busybox" xzcat "$file" >"$kept" ;; # the host may have no xz
            *) mv "$file" "$kept" ;;
        esac
    done
}

main
