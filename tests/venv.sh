# Makes (or reuses) the venv $1 with this package and the extras $2. Sourced from the repository's
# top folder by tests/run.sh and examples/quickstart.sh.
venv=$1 extras=${2:+[$2]}
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then
  echo "error: $("$python" --version) cannot run ushape; it needs Python 3.11 to 3.13" >&2
  echo "hint: PYTHON=python3.11 $0" >&2
  exit 2
fi
stamp=$venv/installed-$(cat pyproject.toml tests/constraints.txt | cksum | tr -d ' ')${2:-}
if [ ! -e "$stamp" ]; then
  "$python" -m venv "$venv"
  "$venv/bin/pip" install --quiet --upgrade pip
  # torch first: without a GPU the CPU build is enough and 3 GB smaller, where one is offered.
  "$venv/bin/pip" install --quiet -c tests/constraints.txt torch
  "$venv/bin/pip" install --quiet -c tests/constraints.txt -e ".$extras"
  touch "$stamp"
fi
