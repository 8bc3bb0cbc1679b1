#!/bin/sh
# A coarse mesh from a service: sh hosted.sh IMAGE OUT SEED, with COARSE_API and COARSE_API_KEY.
# The service is to answer a POST with {"id": ...} and GET /ID with {"state": ..., "url": ...};
# adapt the names to yours. ushape ends it when its time is up.
set -eu
image=$1 out=$2 seed=$3
auth="Authorization: Bearer ${COARSE_API_KEY:?no COARSE_API_KEY}"

field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

id=$(curl -fsS -H "$auth" -F "image=@$image" -F "seed=$seed" "$COARSE_API" | field id)
while :; do
    answer=$(curl -fsS --retry 5 -H "$auth" "$COARSE_API/$id")
    state=$(printf '%s' "$answer" | field state)
    case $state in
        done) break ;;
        failed) printf 'the service failed: %s\n' "$answer" >&2; exit 1 ;;
    esac
    sleep "${COARSE_API_PAUSE:-5}"
done
curl -fsS -o "$out" "$(printf '%s' "$answer" | field url)"
