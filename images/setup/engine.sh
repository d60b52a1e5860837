#!/bin/bash
# A running Docker engine: installed when missing, started when it is not
# running, also after the machine was stopped hard.
STEP="docker engine"
# shellcheck source=images/setup/debian.sh
. "$(dirname "$0")/debian.sh"

DEADLINE=90 # seconds until a started engine must answer
ENGINE_LOG=/var/log/postern-dockerd.log

answers() { timeout 20 docker version --format '{{.Server.Version}}' 2>/dev/null; }

install_engine() {
    local missing=()
    command -v dockerd >/dev/null || missing+=(docker.io ca-certificates)
    command -v iptables >/dev/null || missing+=(iptables)
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
    # In later releases the client is a package of its own.
    command -v docker >/dev/null || apt_install docker-cli
}

# is_alive PIDFILE NAME: does the process in PIDFILE exist, and is it NAME?
# After a hard stop the number may belong to any other program.
is_alive() { [ "$(cat "/proc/$(cat "$1" 2>/dev/null)/comm" 2>/dev/null)" = "$2" ]; }

# Where /run is not a tmpfs, the files of a stopped engine outlive a reboot and
# keep the next one, or its containers, from starting.
clear_stale_files() {
    is_alive /run/docker.pid dockerd || rm -f /run/docker.pid
    is_alive /run/docker/containerd/containerd.pid containerd ||
        rm -f /run/docker/containerd/containerd.pid
    # (comm is cut to 15 characters: this is containerd-shim-runc-v2, too.)
    if ! cat /proc/[0-9]*/comm 2>/dev/null | grep -qxE 'dockerd|containerd|containerd-shim'; then
        umount /run/docker/netns/* 2>/dev/null || true
        rm -rf /run/docker /run/docker.sock
    fi
}

mount_cgroups() {
    if ! grep -qE ' (cgroup|cgroup2) ' /proc/mounts; then
        say "mounting the cgroup file system"
        mount -t cgroup2 none /sys/fs/cgroup || fail "cannot mount cgroup2 on /sys/fs/cgroup"
    fi
}

wait_until_it_answers() {
    local end=$((SECONDS + $1))
    until answers >/dev/null; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.5
    done
}

start_with_systemd() {
    systemctl start docker >>"$LOG" 2>&1 && wait_until_it_answers "$DEADLINE" && return
    journalctl -u docker -n 25 --no-pager >&2 || true
    fail "systemd does not bring the engine up; above is the end of its journal"
}

# Without systemd: Debian's init script, and where that cannot work (it raises
# limits, which a restricted root may not) the daemon itself.
start_without_systemd() {
    local end=$((SECONDS + DEADLINE)) pid
    service docker start >>"$LOG" 2>&1 9>&- && wait_until_it_answers 30 && return
    say "its service does not start; starting dockerd by hand (log: $ENGINE_LOG)"
    clear_stale_files
    setsid dockerd >>"$ENGINE_LOG" 2>&1 </dev/null 9>&- &
    pid=$!
    until answers >/dev/null; do
        if [ ! -d "/proc/$pid" ] || [ "$SECONDS" -ge "$end" ]; then
            tail -n 25 "$ENGINE_LOG" >&2
            fail "dockerd does not come up; above is the end of $ENGINE_LOG"
        fi
        sleep 0.5
    done
}

if version=$(answers); then
    say "version $version is running"
    exit
fi
[ -z "${DOCKER_HOST:-}" ] || fail "DOCKER_HOST=$DOCKER_HOST does not answer"
require_root
exec 9>"$STATE/engine.lock"
flock -w 600 9 || fail "another set-up holds $STATE/engine.lock"
install_engine
if ! answers >/dev/null; then
    say "starting it"
    clear_stale_files
    mount_cgroups
    if [ -d /run/systemd/system ]; then start_with_systemd; else start_without_systemd; fi
fi
say "version $(answers) is running"
