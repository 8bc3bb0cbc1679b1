#!/usr/bin/env bash
# How the weights of the packaged tiny model were made, with nothing but ushape's own commands:
#   bash examples/tiny/train.sh OUT
# About two hours on one CPU core after an hour of preparation; see README.md beside this file.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?folder for everything}
recipe=examples/tiny

python examples/make_figurines.py "$out/models" --count 1092 --resolution 112
ushape prepare "$out/models" -o "$out/data" --config $recipe/data.toml
ushape train --config $recipe/vae.toml --data "$out/data" --init random --out "$out/runs/vae"
previous=vae
for part in dit-1 dit-2 dit-3 dit-4; do
  ushape train --config $recipe/$part.toml --data "$out/data" --init "$out/runs/$previous" \
    --out "$out/runs/$part"
  previous=$part
done
ushape weights export "$out/runs/dit-4" --ema --dtype fp16 -o "$out/tiny.safetensors"
ushape evaluate --checkpoint "$out/tiny.safetensors" --data "$out/data" --ablation \
  -o "$out/evaluation"
