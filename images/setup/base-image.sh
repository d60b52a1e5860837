#!/bin/bash
# The image that ours is built on: BASE_IMAGE when this machine has it or can
# pull it, else a minimal Debian made with debootstrap from this machine's own
# mirror. The name of the one to use is left in .state/base-image.
STEP="base image"
# shellcheck source=images/setup/debian.sh
. "$(dirname "$0")/debian.sh"

RELEASE=trixie
OWN=postern-base:$RELEASE
WANTED=${BASE_IMAGE:-$OWN}
PULL_SECONDS=300

use() {
    printf '%s\n' "$1" >"$STATE/base-image"
    say "$1 ($2)"
    exit
}
have() { docker image inspect "$1" >/dev/null 2>&1; }

# What apt in the image needs to know of this machine's apt: how old a mirror's
# lists may be, and the proxy.
inherited_apt_settings() {
    apt-config dump --format '%f "%v";%n' Acquire::Check-Valid-Until Acquire::Check-Date \
        Acquire::http::Proxy Acquire::https::Proxy
}

write_configuration() {
    local root=$1
    rm -f "$root/etc/apt/sources.list"
    debian_sources "$RELEASE" >"$root/etc/apt/sources.list.d/debian.sources"
    {
        echo 'APT::Install-Recommends "false";'
        echo 'Acquire::Languages "none";'
        inherited_apt_settings
    } >"$root/etc/apt/apt.conf.d/90postern"
    # Packages installed later bring no documentation and no translations.
    {
        echo 'path-exclude /usr/share/doc/*'
        echo 'path-include /usr/share/doc/*/copyright'
        echo 'path-exclude /usr/share/man/*'
        echo 'path-exclude /usr/share/info/*'
        echo 'path-exclude /usr/share/locale/*'
        echo 'path-exclude /usr/share/lintian/*'
    } >"$root/etc/dpkg/dpkg.cfg.d/postern"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no services start in a build
    chmod 755 "$root/usr/sbin/policy-rc.d"
}

trim() {
    local root=$1
    find "$root/usr/share/doc" -type f ! -name copyright -delete
    find "$root/usr/share/doc" "$root/usr/share/man" -depth -type d -empty -delete
    find "$root"/usr/share/{man,info,locale,lintian} -mindepth 1 -delete 2>/dev/null || true
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old \
        "$root"/var/lib/dpkg/*-old "$root"/var/log/*.log "$root"/var/log/apt/* "$root"/etc/hostname
    : >"$root/etc/resolv.conf"
    : >"$root/etc/machine-id"
}

build() {
    local dir root mirror include=()
    require_debian "a base image (name one with BASE_IMAGE=)"
    require_root
    command -v debootstrap >/dev/null || apt_install debootstrap
    mirror=$(archive_uri "$(codename)")
    [ -n "$mirror" ] || fail "apt has no source for Debian $(codename)"
    case $mirror in https:*) include=(--include=ca-certificates) ;; esac
    say "building $OWN with debootstrap"
    dir=$(mktemp -d /var/tmp/postern-base.XXXXXX)
    root=$dir/root
    # shellcheck disable=SC2064
    trap "rm -rf --one-file-system '$dir'" EXIT
    quietly "debootstrap" debootstrap --variant=minbase "${include[@]}" "$RELEASE" "$root" "$mirror"
    write_configuration "$root"
    quietly "apt-get update in the image" chroot "$root" apt-get -q update
    quietly "security updates in the image" chroot "$root" apt-get -qy dist-upgrade
    trim "$root"
    tar -C "$root" --numeric-owner --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -c . |
        docker import --change 'CMD ["/bin/bash"]' --message "Debian $RELEASE" - "$OWN" >>"$LOG"
}

have "$WANTED" && use "$WANTED" "present"
if [ "$WANTED" != "$OWN" ]; then # ours is never asked for at a registry
    say "pulling $WANTED"
    timeout "$PULL_SECONDS" docker pull -q "$WANTED" >>"$LOG" 2>&1 && use "$WANTED" "pulled"
    say "$WANTED cannot be pulled; Debian's own packages will do"
    have "$OWN" && use "$OWN" "present"
fi
build
use "$OWN" "built"
