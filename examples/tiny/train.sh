#!/usr/bin/env bash
# How the weights of the packaged tiny model are made, with nothing but ushape's own commands:
#   bash examples/tiny/train.sh OUT
# About three hours on two CPU cores; see README.md beside this file. Run again, it goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?folder for everything}
recipe=examples/tiny

python examples/make_shapes.py "$out/models" --count 540
python examples/make_shapes.py "$out/models" --count 490 --start 1080 --vary
ushape prepare "$out/models" -o "$out/data" --config $recipe/data.toml
init=random
for part in vae-1 vae-2 dit-1 dit-2; do
  ushape train --config $recipe/$part.toml --data "$out/data" --init $init --out "$out/runs/$part"
  init=$out/runs/$part
done
ushape weights export "$out/runs/dit-2" --ema --dtype fp16 -o "$out/tiny.safetensors"
ushape evaluate --checkpoint "$out/tiny.safetensors" --data "$out/data" --ablation \
  -o "$out/evaluation"
