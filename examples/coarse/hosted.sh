#!/bin/sh
# A coarse mesh from a service: sh hosted.sh IMAGE OUT SEED, with COARSE_API and COARSE_API_KEY.
# The service is to answer a POST with {"id": ...} and GET /ID with {"state": ..., "url": ...};
# adapt the names to yours. ushape ends it when its time is up.
set -eu
image=$1 out=$2 seed=$3
: "${COARSE_API_KEY:?no COARSE_API_KEY}"

# The key goes to curl through a pipe: other users of the machine see arguments.
ask() { printf 'header = "Authorization: Bearer %s"\n' "$COARSE_API_KEY" | curl -fsS -K - "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

answer=$(ask -F "image=@$image" -F "seed=$seed" "$COARSE_API")
id=$(printf '%s' "$answer" | field id)
while :; do
    answer=$(ask --retry 5 "$COARSE_API/$id")
    state=$(printf '%s' "$answer" | field state)
    case $state in
        done) break ;;
        failed) printf 'the service failed: %s\n' "$answer" >&2; exit 1 ;;
    esac
    sleep "${COARSE_API_PAUSE:-5}"
done
# Without the key: files often lie with someone else.
curl -fsS --retry 5 -o "$out" "$(printf '%s' "$answer" | field url)"
