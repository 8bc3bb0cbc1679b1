#!/usr/bin/env bash
# Lint, types and tests from a clean checkout: makes its own venv and installs what it needs.
# USHAPE_VENV names another venv; PYTHON another interpreter; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${USHAPE_VENV:-.venv}
source tests/venv.sh "$venv" dev
"$venv/bin/ruff" format --check .
"$venv/bin/ruff" check .
"$venv/bin/mypy"
exec "$venv/bin/python" -m pytest "$@"
