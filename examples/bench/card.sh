#!/usr/bin/env bash
# The first minutes on a rented card:
#   bash examples/bench/card.sh [--minutes 10] [OPTIONS of ushape doctor]
# Measures the card with random weights and made-up data, and writes card.json here and nothing
# else. Exit 1: something is red. Run it again for what had no time.
set -euo pipefail
exec ushape doctor --card -o card.json "$@"
