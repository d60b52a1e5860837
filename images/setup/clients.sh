#!/bin/bash
# clients.sh PROGRAM...: mail clients on this machine, from Debian's packages of
# the same names.
STEP="mail clients"
# shellcheck source=images/setup/debian.sh
. "$(dirname "$0")/debian.sh"

missing=()
for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
done
[ ${#missing[@]} = 0 ] || apt_install ca-certificates "${missing[@]}"
say "$* are there"
