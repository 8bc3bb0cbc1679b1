#!/usr/bin/env bash
# Lint, types and tests from a clean checkout: makes its own venv and installs what it needs.
# USHAPE_VENV names another venv; PYTHON another interpreter; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${USHAPE_VENV:-.venv}
source tests/venv.sh "$venv" dev
# On the core that the checks leave free: the test processes would compile all of it at once.
"$venv/bin/python" tests/compile_kernels.py & kernels=$!
"$venv/bin/ruff" format --check .
"$venv/bin/ruff" check .
"$venv/bin/mypy"
wait "$kernels"
exec "$venv/bin/python" -m pytest --numprocesses 2 --dist worksteal --durations 10 "$@"
