#!/bin/bash
# Removes what the other steps have made: containers, images, .venv and caches.
# The volume with the mail, the demo account's password that belongs to it, and
# what apt has installed stay.
STEP="clean"
# shellcheck source=images/setup/debian.sh
. "$(dirname "$0")/debian.sh"

if docker version >/dev/null 2>&1; then
    docker compose -f "$TOP/compose/compose.yaml" down --remove-orphans >>"$LOG" 2>&1 || true
    for image in "${APPLIANCE_IMAGE:-postern:latest}" postern-base:trixie; do
        if docker image rm "$image" >>"$LOG" 2>&1; then say "removed the image $image"; fi
    done
    # The stages of past builds; no other project's images.
    docker image prune --force --filter label=postern.stage >>"$LOG" 2>&1 || true
fi
find "$TOP" -name __pycache__ -prune -exec rm -rf {} +
rm -rf "$TOP"/{.venv,build,dist,.mypy_cache,.ruff_cache,.pytest_cache,.hypothesis} \
    "$TOP"/*.egg-info "$STATE/base-image" "$STATE/setup.log"
say "removed .venv and caches; the volume with the mail is kept (docker volume ls)"
