#!/bin/bash
# `docker compose` version 2. Where it is missing, the plugin is taken out of
# Debian trixie's package: bookworm has only the first version. Just the one
# file is installed, so no package of this machine changes.
STEP="docker compose"
# shellcheck source=images/setup/debian.sh
. "$(dirname "$0")/debian.sh"

RELEASE=trixie
PLUGIN=usr/libexec/docker/cli-plugins/docker-compose    # in the package
TARGET=/usr/local/lib/docker/cli-plugins/docker-compose # every docker client looks there

works() { docker compose version --short 2>/dev/null; }

fetch_plugin() {
    local dir apt
    dir=$(mktemp -d)
    mkdir -p "$dir/sources" "$dir/lists/partial" "$dir/cache/archives/partial"
    debian_sources "$RELEASE" >"$dir/sources/debian.sources"
    chmod -R a+rX "$dir"
    apt=(apt_only "$dir/sources" -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache"
        -o APT::Sandbox::User=root)
    quietly "apt-get update for $RELEASE" "${apt[@]}" update
    cd "$dir"
    quietly "download of docker-compose" "${apt[@]}" download docker-compose
    mkdir -p "$(dirname "$TARGET")"
    dpkg-deb --fsys-tarfile docker-compose_*.deb | tar -xO "./$PLUGIN" >"$TARGET.new"
    chmod 755 "$TARGET.new"
    mv "$TARGET.new" "$TARGET"
    cd / && rm -rf "$dir"
}

if ! version=$(works); then
    require_debian "docker compose version 2"
    require_root
    say "fetching the plugin from Debian $RELEASE"
    fetch_plugin
    version=$(works) || fail "docker does not find the plugin $TARGET"
fi
case ${version#v} in
[01].*) fail "version $version is too old; version 2 is needed" ;;
esac
say "version $version"
