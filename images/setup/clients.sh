#!/bin/bash
# clients.sh PROGRAM...: mail clients on this machine, from Debian's packages of
# the same names.
STEP="mail clients"
# shellcheck source=images/setup/debian.sh
. "$(dirname "$0")/debian.sh"

works() {
    command -v "$1" >/dev/null || return 1
    # Its package only recommends what it needs for TLS.
    [ "$1" != swaks ] || perl -MNet::SSLeay -e 1 2>/dev/null
}

missing=()
for program in "$@"; do
    works "$program" && continue
    missing+=("$program")
    [ "$program" != swaks ] || missing+=(libnet-ssleay-perl)
done
[ ${#missing[@]} = 0 ] || apt_install ca-certificates "${missing[@]}"
say "$* are there"
