#!/usr/bin/env bash
# The whole main job on this machine, in minutes on a CPU:
#   bash examples/quickstart.sh [MODELS_DIR]
# Makes a venv, installs ushape, prepares a dataset (of MODELS_DIR, or of figurines it generates),
# trains the tiny model and refines a held-out mesh that was coarsened on purpose. Re-running it
# only does what is left. Everything it writes is in quickstart/ (USHAPE_QUICKSTART names another).
set -euo pipefail
models=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
out=${USHAPE_QUICKSTART:-quickstart}
source tests/venv.sh "${USHAPE_VENV:-.venv}"
export PATH=$PWD/$venv/bin:$PATH
config=examples/tiny.toml

if [ -z "$models" ]; then
  models=$out/models
  python examples/make_figurines.py "$models" --count 12
  name=figurines
else
  name=$(basename "$models")
fi
data=$out/$name/data runs=$out/$name/runs

echo "1. prepare: meshes -> watertight, rendered, sampled, split"
# Exit code 1 says that some meshes failed and are recorded; the others make the dataset.
ushape prepare "$models" -o "$data" --config $config || [ $? = 1 ]

echo "2. train: first the autoencoder, then the diffusion transformer"
ushape train --config $config --data "$data" --stage vae --steps 800 --out "$runs/vae"
ushape train --config $config --data "$data" --init "$runs/vae" --steps 500 --out "$runs/dit"

echo "3. refine: a held-out mesh, coarsened on purpose"
asset=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))[0])' \
  "$data/data_list/val.json")
[ -e "$out/$name/coarse.glb" ] || python examples/coarsen.py "$data/meshes/$asset.ply" \
  "$out/$name/coarse.glb"
ushape refine "$out/$name/coarse.glb" "$data/renders/$asset/view_000.png" \
  --config $config --checkpoint "$runs/dit" -o "$out/$name/refined.glb"
python examples/preview.py "$out/$name/preview.png" "$out/$name/coarse.glb" \
  "$out/$name/refined.glb" "$data/meshes/$asset.ply"

echo
echo "dataset report   $data/report.html"
echo "training runs    $runs  (ushape monitor $runs/dit)"
echo "refined mesh     $out/$name/refined.glb"
echo "coarse, refined, ground truth side by side   $out/$name/preview.png"
