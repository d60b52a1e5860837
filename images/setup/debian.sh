# What the set-up steps share: how they speak, and how they use Debian's archive.
# Sourced by the other scripts of this directory; each of them is one step.
#
# The archive is always the one that this machine's own apt is configured for:
# no mirror is named here. Only entries of Debian itself are used, so a third
# party's list that is out of reach or badly signed cannot stop a set-up.
# shellcheck shell=bash

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
STATE=$TOP/.state
LOG=$STATE/setup.log
mkdir -p "$STATE"

export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 DOCKER_BUILDKIT=0 DOCKER_CLI_HINTS=false

say() { printf '%s: %s\n' "$STEP" "$*"; }
fail() {
    printf '%s: error: %s\n' "$STEP" "$*" >&2
    exit 1
}

# quietly WHAT COMMAND...: runs COMMAND with its output in the log, and shows
# the end of that log only when COMMAND fails.
quietly() {
    local what=$1
    shift
    printf '== %s: %s\n' "$STEP" "$*" >>"$LOG"
    if ! "$@" >>"$LOG" 2>&1 </dev/null; then
        tail -n 25 "$LOG" >&2
        fail "$what failed (the whole log: $LOG)"
    fi
}

require_root() { [ "$(id -u)" = 0 ] || fail "must run as root"; }

# Elsewhere than on Debian nothing can be installed from here.
require_debian() {
    (. /etc/os-release && [ "$ID" = debian ]) || fail "$1 is missing, and this machine is not Debian"
}

codename() { (. /etc/os-release && printf '%s' "$VERSION_CODENAME"); }

# archive_uri SUITE: the URI that apt fetches SUITE of this machine's release
# from (`bookworm`, `bookworm-security`); nothing when it has no such entry.
archive_uri() {
    local uri list
    # shellcheck disable=SC2016
    uri=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$1" '$1 == suite && $2 == "main" && $3 !~ /^cdrom:/ { print $3; exit }')
    case $uri in
    mirror+file:*) # a list of mirrors, as cloud images have it: its first line will do
        list=${uri#mirror+file:}
        uri=$(awk '/:\/\// { print $1; exit }' "${list%/}")
        ;;
    esac
    printf '%s' "$uri"
}

# debian_sources RELEASE: a deb822 list of Debian's main archive for RELEASE.
# The keyring holds the keys of past and coming releases, too.
debian_sources() {
    local release=$1 main security key=/usr/share/keyrings/debian-archive-keyring.gpg
    main=$(archive_uri "$(codename)")
    security=$(archive_uri "$(codename)-security")
    [ -n "$main" ] || fail "apt has no source for Debian $(codename); see /etc/apt/sources.list.d"
    printf 'Types: deb\nURIs: %s\nSuites: %s %s-updates\nComponents: main\nSigned-By: %s\n' \
        "$main" "$release" "$release" "$key"
    if [ -n "$security" ]; then
        printf '\nTypes: deb\nURIs: %s\nSuites: %s-security\nComponents: main\nSigned-By: %s\n' \
            "$security" "$release" "$key"
    fi
}

# apt_only DIR APT-COMMAND...: apt with the lists in DIR and no others.
apt_only() {
    local lists=$1
    shift
    apt-get -qq -y -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$lists" \
        -o APT::Get::List-Cleanup=0 -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 \
        -o Dpkg::Use-Pty=0 "$@"
}

# apt_install PACKAGE...: installs what is missing from Debian's own archive.
apt_install() {
    local lists
    require_debian "one of $*"
    require_root
    say "installing $* with apt"
    lists=$(mktemp -d)
    debian_sources "$(codename)" >"$lists/debian.sources"
    chmod -R a+rX "$lists"
    quietly "apt-get update" apt_only "$lists" update
    quietly "apt-get install $*" apt_only "$lists" install --no-install-recommends "$@"
    rm -rf "$lists"
}
