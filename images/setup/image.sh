#!/bin/bash
# The appliance's image. Docker's cache sees what has changed since the last build.
STEP="appliance image"
# shellcheck source=images/setup/debian.sh
. "$(dirname "$0")/debian.sh"

IMAGE=${APPLIANCE_IMAGE:-postern:latest}
TITLE=org.opencontainers.image.title=Postern

id_of() { docker image inspect --format '{{.Id}}' "$IMAGE" 2>/dev/null || true; }
version() { sed -n 's/^version = "\(.*\)"/\1/p' "$TOP/pyproject.toml"; }

before=$(id_of)
[ -n "$before" ] || say "building $IMAGE"
quietly "docker build" docker build --force-rm -f "$TOP/images/Dockerfile" -t "$IMAGE" \
    --build-arg "BASE_IMAGE=$(cat "$STATE/base-image")" \
    --build-arg "MAILER_IMAGE=${MAILER_IMAGE:-pyqmail}" \
    --build-arg "UCSPI_IMAGE=${UCSPI_IMAGE:-acceptserver}" \
    --build-arg "CHECKPASSWORD=${CHECKPASSWORD:-}" \
    --build-arg "VERSION=$(version)" "$TOP"
if [ "$before" = "$(id_of)" ]; then
    say "$IMAGE is up to date"
else
    say "$IMAGE built ($(docker image inspect --format '{{.Size}}' "$IMAGE" | awk '{ printf "%d MB", $1 / 1e6 }'))"
    docker image prune --force --filter "label=$TITLE" >>"$LOG" 2>&1 || true
fi
