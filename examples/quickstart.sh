#!/usr/bin/env bash
# The whole main job on this machine, in minutes on a CPU:
#   bash examples/quickstart.sh [MODELS_DIR]
# Makes a venv, installs ushape, prepares a dataset (of MODELS_DIR, or of figurines it generates),
# fine-tunes the tiny model that comes with the package on it, shows base against fine-tuned on
# held-out meshes, and refines one of them. Re-running it only does what is left. Everything it
# writes is in quickstart/ (USHAPE_QUICKSTART names another).
set -euo pipefail
models=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
out=${USHAPE_QUICKSTART:-quickstart}
source tests/venv.sh "${USHAPE_VENV:-.venv}"
# To ushape itself variables with this beginning are settings.
unset USHAPE_QUICKSTART USHAPE_VENV
export PATH=$PWD/$venv/bin:$PATH
config=examples/tiny/quickstart.toml

if [ -z "$models" ]; then
  models=$out/models
  # The tiny model has not seen these seeds.
  python examples/make_figurines.py "$models" --count 12 --start 10000
  name=figurines
else
  name=$(basename "$models")
fi
data=$out/$name/data run=$out/$name/runs/finetuned

echo "1. prepare: meshes -> watertight, rendered, sampled, split"
# Exit code 1 says that some meshes failed and are recorded; the others make the dataset.
ushape prepare "$models" -o "$data" --config $config || [ $? = 1 ]

echo "2. train: fine-tune the tiny model"
ushape train --config $config --data "$data" --init tiny --steps 400 --out "$run"

echo "3. evaluate: base against fine-tuned on held-out meshes"
ushape evaluate --checkpoint "$run" --against tiny --data "$data" --config $config \
  -o "$out/$name/evaluation" || [ $? = 1 ]

echo "4. refine: a held-out mesh, coarsened on purpose"
asset=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))[0])' \
  "$data/data_list/val.json")
[ -e "$out/$name/coarse.glb" ] || python examples/coarsen.py "$data/meshes/$asset.ply" \
  "$out/$name/coarse.glb"
ushape refine "$out/$name/coarse.glb" "$data/renders/$asset/view_000.png" --config $config \
  --checkpoint "$run" -o "$out/$name/refined.glb" --preview "$out/$name/preview.png"

echo
echo "dataset report      $data/report.html"
echo "training run        $run  (ushape monitor $run, ushape report $run)"
echo "base against fine-tuned   $out/$name/evaluation/report.html"
echo "refined mesh        $out/$name/refined.glb"
echo "reference, coarse, refined side by side   $out/$name/preview.png"
