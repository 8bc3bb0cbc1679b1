#!/usr/bin/env bash
# How the weights of the packaged tiny model were made, with nothing but ushape's own commands:
#   bash examples/tiny/train.sh OUT
# Two hours on one CPU core after an hour of preparation; see README.md beside this file.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?folder for everything}
recipe=examples/tiny

python examples/make_figurines.py "$out/models" --count 2000 --resolution 112
ushape prepare "$out/models" -o "$out/data" --config $recipe/data.toml
ushape train --config $recipe/vae.toml --data "$out/data" --out "$out/runs/vae"
ushape train --config $recipe/dit-1.toml --data "$out/data" --init "$out/runs/vae" \
  --out "$out/runs/dit-1"
ushape train --config $recipe/dit-2.toml --data "$out/data" --init "$out/runs/dit-1" \
  --out "$out/runs/dit-2"
ushape weights export "$out/runs/dit-2" --ema --dtype fp16 -o "$out/tiny.safetensors"
ushape evaluate --checkpoint "$out/tiny.safetensors" --data "$out/data" --ablation \
  -o "$out/evaluation"
