#!/bin/bash
# Starts the appliance, waits until it is healthy, makes sure of the demo account
# and prints how to send and to fetch a mail with it.
STEP="appliance"
# shellcheck source=images/setup/debian.sh
. "$(dirname "$0")/../images/setup/debian.sh"

DEADLINE=90 # seconds until the appliance must be healthy
PASSWORD_FILE=$STATE/demo-password
COMPOSE=(docker compose -f "$TOP/compose/compose.yaml")

# configured NAME DEFAULT: NAME from the environment, else from compose/.env.
configured() {
    local value=${!1:-}
    [ -n "$value" ] || value=$(sed -n "s/^$1=//p" "$TOP/compose/.env" 2>/dev/null | tail -n 1)
    printf '%s' "${value:-$2}"
}

is_free() {
    "$TOP/.venv/bin/python" - "$(configured PUBLISH_ADDRESS 0.0.0.0)" "$1" 2>/dev/null <<'PY'
import socket, sys
with socket.socket() as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((sys.argv[1], int(sys.argv[2])))
PY
}

# choose NAME PORT...: exports NAME as the port to publish PORT on: the one that
# is configured, or the one that our running container has, or the first free one.
choose() {
    local name=$1 inside=$2 wanted running port
    shift
    wanted=$(configured "$name" "")
    running=$("${COMPOSE[@]}" port mail "$inside" 2>/dev/null | sed -n 's/.*://p' || true)
    if [ -n "$wanted" ]; then
        [ "$wanted" = "$running" ] || is_free "$wanted" ||
            fail "port $wanted ($name) is taken on this machine"
        export "$name=$wanted"
        return
    fi
    for port in ${running:-"$@"}; do
        if [ "$port" = "$running" ] || is_free "$port"; then
            export "$name=$port"
            [ "$port" = "$inside" ] || say "port $inside is published on $port ($name)"
            return
        fi
    done
    fail "the ports $* are taken on this machine; choose one with $name="
}

choose_ports() {
    choose PUBLISH_MX 25 2525 25025
    choose PUBLISH_SUBMISSION 587 2587 25587
    choose PUBLISH_SUBMISSIONS 465 2465 25465
    choose PUBLISH_POP3 110 2110 25110
    choose PUBLISH_POP3S 995 2995 25995
}

wait_until_healthy() {
    local end=$((SECONDS + DEADLINE)) state
    until "${COMPOSE[@]}" exec -T mail postern health >>"$LOG" 2>&1 </dev/null; do
        state=$("${COMPOSE[@]}" ps --all --format '{{.State}}' mail)
        if [ "$state" != running ] || [ "$SECONDS" -ge "$end" ]; then
            docker logs --tail 40 "$("${COMPOSE[@]}" ps --all --quiet mail)" >&2
            fail "it is $state but not healthy; above is the end of its log"
        fi
        sleep 0.5
    done
}

new_password() { (umask 077 && head -c 15 /dev/urandom | base64 | tr '+/' 'xy' >"$PASSWORD_FILE"); }

# An account that is there keeps its password, unless nobody knows it here.
make_demo_account() {
    local verb=add
    if "${COMPOSE[@]}" exec -T mail postern user list </dev/null |
        grep -qE "(^|[[:space:]])$DEMO([[:space:]]|\$)"; then
        [ ! -s "$PASSWORD_FILE" ] || return 0
        verb=passwd
    fi
    [ -s "$PASSWORD_FILE" ] || new_password
    "${COMPOSE[@]}" exec -T mail postern user "$verb" "$DEMO" <"$PASSWORD_FILE" >>"$LOG" 2>&1 ||
        fail "postern user $verb $DEMO failed; see $LOG"
}

print_commands() {
    local host=127.0.0.1 secret="\$(cat $PASSWORD_FILE)"
    cat <<END

The appliance is running. The demo account is $DEMO,
its password is in $PASSWORD_FILE

Send a mail (587, STARTTLS and AUTH), with swaks or with curl:

  swaks --server $host:$PUBLISH_SUBMISSION --tls --auth PLAIN \\
    --auth-user $DEMO --auth-password "$secret" \\
    --from $DEMO --to $DEMO --header "Subject: hello from swaks"

  printf 'From: $DEMO\r\nTo: $DEMO\r\nSubject: hello from curl\r\n\r\nIt works.\r\n' |
    curl -sS --insecure --ssl-reqd --user "$DEMO:$secret" \\
    --mail-from $DEMO --mail-rcpt $DEMO \\
    --upload-file - smtp://$host:$PUBLISH_SUBMISSION

List the mails and fetch the first (995):

  curl -sS --insecure --user "$DEMO:$secret" pop3s://$host:$PUBLISH_POP3S/
  curl -sS --insecure --user "$DEMO:$secret" pop3s://$host:$PUBLISH_POP3S/1

The log: docker compose -f $TOP/compose/compose.yaml logs -f
END
}

domains=$(configured POSTERN_DOMAINS example.org)
DEMO=demo@${domains%%[, ]*}

choose_ports
say "starting $(configured POSTERN_HOSTNAME mail.example.org)"
quietly "docker compose up" "${COMPOSE[@]}" up --detach --no-build
wait_until_healthy
make_demo_account
say "healthy"
print_commands
