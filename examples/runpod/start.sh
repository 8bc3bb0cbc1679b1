#!/usr/bin/env bash
# What a pod begins with: your key for sshd, folders on the volume, and a look at card, driver and
# disk before anything is downloaded. Then it runs the command it was given, or waits for you.
#   start.sh [COMMAND ...]
# VOLUME: where the pod mounts its volume, /workspace. It is on a network: datasets travel and stay
# packed there, `ushape serve --data` belongs on the pod's own disk.
set -euo pipefail
volume=${VOLUME:-/workspace}

if [ -n "${PUBLIC_KEY:-}" ]; then
  mkdir -p ~/.ssh
  printf '%s\n' "$PUBLIC_KEY" > ~/.ssh/authorized_keys
  chmod 700 ~/.ssh
  chmod 600 ~/.ssh/authorized_keys
  # A login starts without the variables of the pod.
  (
    umask 077
    export -p | grep -E '^declare -x (PATH|(USHAPE|HF|WANDB|AWS|GOOGLE|NUMBA|TRITON|TORCHINDUCTOR|XDG)_\w+)=' \
      > ~/.ushape-environment
  )
  grep -qs ushape-environment ~/.bash_profile || echo '. ~/.ushape-environment' >> ~/.bash_profile
  # Every pod its own: host keys in an image would be the same for all.
  ssh-keygen -A
  mkdir -p /run/sshd
  "$(command -v sshd)" -o PasswordAuthentication=no
fi

mkdir -p "$volume"/{models,weights,runs}
cd "$volume"

# Names the driver that is needed. What follows costs money and gigabytes.
ushape doctor --require gpu,driver,disk

if [ $# -gt 0 ]; then
  exec "$@"
fi
exec sleep infinity
