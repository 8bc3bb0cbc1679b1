#!/usr/bin/env bash
# The whole main job on this machine, in minutes on a CPU:
#   bash examples/quickstart.sh [MODELS_DIR]
# Makes a venv, installs ushape, prepares a dataset (of MODELS_DIR, or of a collection in a style of
# its own that it generates), fine-tunes the tiny model that comes with the package on it, in full
# and as LoRA, and shows on held-out meshes what that gained, and on shapes of other kinds what was
# forgotten. Re-running it only does what is left. Everything it writes is in quickstart/
# (USHAPE_QUICKSTART names another).
set -euo pipefail
models=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
out=${USHAPE_QUICKSTART:-quickstart}
source tests/venv.sh "${USHAPE_VENV:-.venv}" lora
# To ushape itself variables with this beginning are settings.
unset USHAPE_QUICKSTART USHAPE_VENV
export PATH=$(realpath "$venv")/bin:$PATH
config=examples/tiny/quickstart.toml steps=${STEPS:-150}

# Two jobs at a time share the cores, which a tiny model alone does not fill: the second goes to a
# log, is waited for, and ends with this script. Exit code 1 says that some meshes failed and are
# recorded; the others count.
cores=$(getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(((cores + 1) / 2))}
second=
trap '[ -z "$second" ] || kill -- "-$second" 2> /dev/null || true' EXIT
beside() { # in a process group of its own, so that all of it can be ended
  set -m
  "$@" > "$log" 2>&1 &
  second=$!
  set +m
}
joined() { # [highest code that counts as done]
  local code=0
  wait "$second" || code=$?
  second=
  if [ "$code" -gt "${1:-0}" ]; then tail -n 20 "$log" >&2; exit "$code"; fi
}

if [ -z "$models" ]; then
  models=$out/models name=studio
  # The tiny model has seen nothing of this style.
  python examples/make_shapes.py "$models" --family studio --count 40 --start 10000 > /dev/null
else
  name=$(basename "$models")
fi
data=$out/$name/data runs=$out/$name/runs others=$out/others log=$out/second.log
mkdir -p "$out"

train() {
  ushape train --config $config --data "$data" --init tiny --strategy "$1" --steps "$steps" \
    --out "$runs/$1"
}
others() {
  python examples/make_shapes.py "$others/models" --family all --count 54 --start 20000
  ushape prepare "$others/models" -o "$others/data" --config $config --workers 1 \
    --set sample.contents=dit --set split.val=0.9
}

echo "1. prepare: meshes -> watertight, rendered, sampled, split"
beside others
ushape prepare "$models" -o "$data" --config $config || [ $? = 1 ]

echo "2. train: fine-tune the tiny model in full; as LoRA beside the following"
train full
joined 1

echo "3. evaluate: base against fine-tuned on held-out meshes, and on shapes of other kinds"
# By fewer cells, and of the other kinds fewer tokens, than `refine` takes: they tell rows apart as
# well.
quick=(--config $config --set evaluate.round_trip=false --set refine.grid_resolution)
lora_and_forgetting() {
  train lora
  ushape evaluate --checkpoint "$runs/full" --against tiny --data "$others/data" "${quick[@]}=64" \
    --set refine.quality=draft --set refine.tokens=1024 --set evaluate.points=20000 \
    -o "$out/$name/forgetting" || [ $? = 1 ]
}
compare() {
  ushape evaluate --checkpoint "$runs/full" --against tiny "$@" --data "$data" "${quick[@]}=96" \
    -o "$out/$name/evaluation" || [ $? = 1 ]
}
beside lora_and_forgetting
compare
until grep -qs '"finished"' "$runs/lora/status.json" || ! kill -0 "$second" 2> /dev/null; do
  sleep 1
done
# What has been made is not made again.
compare --against "$runs/lora"
joined

echo "4. refine: a held-out mesh, coarsened on purpose"
asset=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))[0])' \
  "$data/data_list/val.json")
[ -e "$out/$name/coarse.glb" ] || python examples/coarsen.py "$data/meshes/$asset.ply" \
  "$out/$name/coarse.glb"
ushape refine "$out/$name/coarse.glb" "$data/renders/$asset/view_000.png" --config $config \
  --checkpoint "$runs/full" -o "$out/$name/refined.glb"

echo
echo "dataset report      $data/report.html"
echo "training run        $runs/full  (ushape monitor $runs, ushape report $runs/full)"
echo "base against fine-tuned   $out/$name/evaluation/report.html"
echo "refined mesh        $out/$name/refined.glb"
echo "coarse, base, fine-tuned, truth   $out/$name/gain.png"
python examples/show_gain.py "$out/$name/evaluation" "$out/$name/gain.png" \
  --others "$out/$name/forgetting"
