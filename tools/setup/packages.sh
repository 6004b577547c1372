# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# System packages: installed only where one is missing, only by root, only while no guest runs.
# What cannot be done here is printed as the commands that do it.

# One row per package: name | least version, without an epoch | how to see that it is there already | why.
# A package whose version in the distribution is below the least comes from its backports.
PACKAGES='
qemu-system-x86|9.1|qemu_is_recent|runs the guests: saving with mapped-ram past the page cache needs QEMU 9.1
qemu-utils|9.1|qemu_is_recent|qemu-img of the same version, for the disks of test guests
lzop|1|companion lzop|for the tests of compressed images
zstd|1|companion zstd|for the tests of compressed images
python3-venv|3.11|python_is_there|makes the Python environment .venv: Python 3.11 or newer with venv
'
# What only some targets need, in the same columns.
readonly LIBVIRT_PACKAGES='
libvirt-daemon-driver-qemu|11.2|libvirt_is_recent|runs domains: save images of format sparse need libvirt 11.2
libvirt-daemon|11.2|libvirt_is_recent|libvirtd itself, of which the tests start their own
libvirt-clients|11.2|libvirt_is_recent|virsh, to compare with
iproute2|5|command -v ip|brings up the loopback of the libvirtd and of the hosts that the tests start
libvirt-dev|11.2|for_the_binding test -e /usr/include/libvirt/libvirt.h|libvirt-python is built with it
pkg-config|0.29|for_the_binding command -v pkg-config|libvirt-python is built with it
gcc|8|for_the_binding command -v gcc|libvirt-python is built with it
libc6-dev|2.28|for_the_binding test -e /usr/include/errno.h|libvirt-python is built with it
python3-venv|3.11|distribution_has_venv|the role kvm_host makes an environment with the system Python
python3-dev|3.11|for_the_binding python_has_headers|libvirt-python is built with it
python3-libvirt|9.0|distribution_has_binding|the role qemu_conf asks the daemon with the system Python
libfuse3-3|3|has_fuse|a store that is slow in one way, which the tests measure, is a FUSE filesystem
openssh-server|8|test -x /usr/sbin/sshd|the program sshd, for hosts that the tests reach over ssh; no service is started
openssh-client|8|command -v ssh|with which Ansible reaches them
netcat-openbsd|1|command -v nc|carries ssh into their networks, to which there is no route
augeas-tools|1.10|command -v augtool|the lens that the role qemu_conf mends is read with it
chromium|120|command -v chromium|the browser in which the report of a fleet is looked at
chromium-driver|120|command -v chromedriver|drives it
'
readonly BACKPORTS_NAME=vmfleet-suspend-backports

# Installed packages that may be exchanged for newer ones on the way: QEMU's own and Python's.
MAY_BE_EXCHANGED='^(qemu-|seabios$|ipxe-qemu$|(lib)?python3)'
# libvirt wants parts of systemd in one version: those that are there may get the same release's
# newest, which is why libvirt alone is taken from backports, by name. OpenSSH's server wants a client
# of its own version.
readonly LIBVIRT_MAY_EXCHANGE='^(systemd|lib(nss|pam)-systemd$|libsystemd|libudev1$|udev$|libxml2|openssh-)'

# Whether packages are taken from backports by NAME/SUITE, with what they cannot do without, or all
# that apt then wants may come from there as well.
backports_by_name=""

# apt as a script needs it: ask nothing, restart no service, wait for another apt, remove nothing.
readonly APT_ENVIRONMENT="DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1"
readonly APT_INSTALL="apt-get install --yes --no-remove --no-install-recommends -o DPkg::Lock::Timeout=300"

install_missing_libvirt() {
    PACKAGES=$LIBVIRT_PACKAGES
    MAY_BE_EXCHANGED=$LIBVIRT_MAY_EXCHANGE
    backports_by_name=yes
    install_missing_packages
}

install_missing_packages() {
    local missing obstacle
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    say "This machine lacks:" "$(describe <<<"$missing")"
    command -v apt-get >/dev/null || refuse \
        "They cannot be installed from here: there is no apt-get. Install them with the system's" \
        "own package manager (their names may differ), then run this again."
    obstacle=$(why_not_install)
    if [ -n "$obstacle" ]; then
        make_plan <<<"$missing"
        refuse "$obstacle" "Nothing was changed. The commands that install what is missing, for root:" "" \
            "apt-get update" "$(show_plan)"
    fi
    say "" "Asking apt what it offers (apt-get update)."
    apt-get -qq -o DPkg::Lock::Timeout=300 update
    make_plan <<<"$missing"
    say "" "Going to run, and nothing else:" "" "$(show_plan)" ""
    run_plan
    missing=$(missing_packages)
    [ -z "$missing" ] || refuse "Installed, but still not usable:" "$(describe <<<"$missing")"
}

missing_packages() {
    local package minimum is_there reason
    while IFS='|' read -r package minimum is_there reason; do
        # Unquoted: a check may have an argument.
        [ -z "$package" ] || $is_there >/dev/null || printf '%s|%s|%s\n' "$package" "$minimum" "$reason"
    done <<<"$PACKAGES"
}

describe() {
    awk -F'|' '{printf "  %-16s >= %-5s %s\n", $1, $2, $3}'
}

qemu_is_recent() {
    local version
    version=$(qemu-system-x86_64 --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
    [ -n "$version" ] && printf '%s\n' 9.1 "$version" | sort -C -V
}

libvirt_is_recent() {
    local daemon client
    daemon=$(libvirtd --version 2>/dev/null | sed -n 's/^[^0-9]*\([0-9.]*\).*/\1/p')
    client=$(virsh --version 2>/dev/null)
    [ -n "$daemon" ] && [ -n "$client" ] && printf '%s\n' 11.2 "$daemon" | sort -C -V &&
        compgen -G '/usr/lib*/*/libvirt/connection-driver/libvirt_driver_qemu.so' >/dev/null
}

# What builds the binding is needed once: the binding stays in its environment.
for_the_binding() { # CHECK...
    libvirt_binding_is_there || "$@"
}

has_fuse() {
    compgen -G '/usr/lib*/*/libfuse3.so.3' >/dev/null
}

# While it exists, Debian's openssh-server starts nothing, neither now nor at boot.
no_ssh_service() { echo /etc/ssh/sshd_not_to_be_run; }

distribution_has_binding() {
    /usr/bin/python3 -c 'import libvirt' 2>/dev/null
}

distribution_has_venv() {
    /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null
}

python_has_headers() {
    local python
    python=$(find_controller_python) &&
        "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'
}

# What only some tests need is installed beside QEMU, never for its own sake: where QEMU is there
# already, those tests say what they miss.
companion() {
    qemu_is_recent || command -v "$1"
}

python_is_there() {
    main_environment_is_ready || find_controller_python
}

# In words, why no system package may be installed now; nothing when it may.
why_not_install() {
    local guests
    if [ "$(id -u)" != 0 ]; then
        say "Only root can install them, and this is $(id -un)."
        return
    fi
    guests=$(running_guests)
    [ -z "$guests" ] ||
        say "Guests run on this machine, and their QEMU is not exchanged under them:" "$guests"
}

running_guests() {
    local process program
    for process in /proc/[0-9]*; do
        program=$(readlink "$process/exe") || continue
        case ${program##*/} in
            qemu-system-* | qemu-kvm* | kvm) say "  process ${process##*/}, ${program% (deleted)}" ;;
        esac
    done
    if command -v virsh >/dev/null; then
        timeout 20 virsh --quiet --readonly list --name 2>/dev/null | sed -n 's/./  libvirt domain &/p'
    fi
    return 0
}

# Reads missing packages; sets plan_commands (the installations, one command each), where an apt
# source must be added for them plan_source (its text) and plan_source_file, and where a service
# must not be started plan_no_service (the file that says so).
make_plan() {
    local package minimum reason own=() backports=() suite entry
    plan_commands=() plan_source="" plan_source_file="" plan_no_service=""
    while IFS='|' read -r package minimum reason; do
        [ "$package" != openssh-server ] || plan_no_service=$(no_ssh_service)
        if is_recent "$(candidate "$package")" "$minimum"; then own+=("$package"); else backports+=("$package"); fi
    done
    if [ ${#backports[@]} -gt 0 ]; then
        suite=$(distribution_codename)-backports
        if [ -n "$backports_by_name" ]; then
            plan_commands+=("$APT_INSTALL ${backports[*]/%//$suite}")
        else
            plan_commands+=("$APT_INSTALL -t $suite ${backports[*]}")
        fi
        if [ -z "$(apt_entries "Codename: $suite")" ]; then
            entry=$(apt_entries "Codename: $(distribution_codename)" "Origin: Debian" "Component: main" | head -n 1)
            [ -n "$entry" ] || refuse \
                "$(distribution_name) offers no recent enough ${backports[*]}, and apt's lists show no" \
                "archive of Debian's own whose backports could have it. If the lists were never fetched:" \
                "apt-get update, as root. Else install the versions above in another way. Then run this again."
            plan_source=$(same_source_other_suite "$entry" "$suite")
            plan_source_file=$(sources_directory)$BACKPORTS_NAME.$(source_format "$entry")
        fi
    fi
    [ ${#own[@]} -eq 0 ] || plan_commands+=("$APT_INSTALL ${own[*]}")
}

# The version apt would install when not told a suite; nothing when it knows none.
candidate() { # PACKAGE
    apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" {print $2}'
}

is_recent() { # VERSION MINIMUM
    [ -n "$1" ] && dpkg --compare-versions "${1#*:}" ge "$2"
}

distribution_codename() { (. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:-}"); }
distribution_name() { (. /etc/os-release && printf '%s\n' "$PRETTY_NAME"); }

sources_directory() { (eval "$(apt-config shell directory Dir::Etc::sourceparts/d)" && printf '%s\n' "$directory"); }

# Where apt's own reading of its sources finds entries that fit: "FILE:NUMBER URI SUITE" lines.
apt_entries() { # FIELD: VALUE...
    apt-get indextargets "Created-By: Packages" "$@" --format '$(SOURCESENTRY) $(REPO_URI) $(RELEASE)'
}

source_format() { # "FILE:NUMBER URI SUITE"
    case $1 in *.sources:*) echo sources ;; *) echo list ;; esac
}

# The source at an entry of apt_entries once more, for another suite and main only. Everything else
# that the administrator wrote about it (key, proxy options, trust) stays as it is.
same_source_other_suite() { # "FILE:NUMBER URI SUITE" NEW-SUITE
    local place uri suite
    read -r place uri suite <<<"$1"
    case $(source_format "$1") in
        sources) awk -v uri="$uri" -v suite="$suite" -v new="$2" -f tools/setup/deb822.awk "${place%:*}" ;;
        *) sed -n "${place##*:}s|^[[:space:]]*deb[[:space:]]\+\(\[[^]]*\][[:space:]]*\)\?\([^[:space:]]\+\)[[:space:]].*|deb \1\2 $2 main|p" "${place%:*}" ;;
    esac
}

show_plan() {
    [ -z "$plan_source" ] || say "cat >$plan_source_file <<'END'" "$plan_source" END "apt-get update"
    [ -z "$plan_no_service" ] || say "mkdir -p ${plan_no_service%/*} && touch $plan_no_service"
    say "${plan_commands[@]/#/$APT_ENVIRONMENT }"
}

run_plan() {
    local command
    if [ -n "$plan_source" ]; then
        printf '%s\n' "$plan_source" >"$plan_source_file"
        apt-get -qq -o DPkg::Lock::Timeout=300 update || take_back_source \
            "apt could not read the added source; its own words are above."
    fi
    say "apt says that this"
    for command in "${plan_commands[@]}"; do
        check_simulation "$command"
    done
    if [ -n "$plan_no_service" ]; then
        mkdir -p "${plan_no_service%/*}"
        touch "$plan_no_service"
    fi
    mkdir -p .build
    for command in "${plan_commands[@]}"; do
        # shellcheck disable=SC2086 # a command and its words
        env $APT_ENVIRONMENT $command >.build/apt.log 2>&1 ||
            refuse "apt failed:" "$(tail -n 30 .build/apt.log)" "" "All it said is in .build/apt.log."
    done
}

# Let apt only say what COMMAND would do; go on when that is recent enough and touches nothing
# that has no part in it.
check_simulation() { # COMMAND
    local simulation changes installs package minimum is_there reason
    simulation=$($1 --simulate) || take_back_source "apt finds no way to do this; its own words are above."
    # "Inst NAME [OLD] (NEW ..." and "Inst NAME (NEW ..." become "NAME OLD NEW", OLD "-" where none.
    changes=$(sed -n -E 's/^Inst ([^ ]+) \[([^]]*)\] \(([^ ]+) .*/\1 \2 \3/p; s/^Inst ([^ ]+) \(([^ ]+) .*/\1 - \2/p' <<<"$simulation")

    refuse_some "apt would remove packages for this:" "$(sed -n 's/^Remv //p' <<<"$simulation")"
    refuse_some "apt would exchange packages that have no part in this:" \
        "$(awk -v may="$MAY_BE_EXCHANGED" '$2 != "-" && $1 !~ may' <<<"$changes")"
    while IFS='|' read -r package minimum is_there reason; do
        [ -z "$package" ] || refuse_some "apt has no recent enough version ($minimum or newer):" "$(
            awk -v package="$package" '$1 == package {print $1, $3}' <<<"$changes" |
                while read -r name version; do is_recent "$version" "$minimum" || say "$name $version"; done)"
    done <<<"$PACKAGES"

    awk 'NF && $2 != "-" {print "exchanges " $1 " " $2 " for " $3}' <<<"$changes"
    installs=$(awk '$2 == "-" {print $1}' <<<"$changes")
    [ -z "$installs" ] || fold -s -w 100 <<<"installs $(paste -sd ' ' <<<"$installs")"
}

refuse_some() { # WHAT LIST
    [ -z "$2" ] || take_back_source "$1" "$2"
}

take_back_source() { # WHY...
    if [ -n "$plan_source_file" ] && [ -f "$plan_source_file" ]; then
        rm "$plan_source_file"
        apt-get -qq update || true
    fi
    refuse "$@" "No package was installed."
}
