"""`ushape doctor --card`: what a card does in its first ten minutes, beside what was planned.

`parts` names the cases, `runner` gives each its time in a process of its own, `case` is that
process, `report` the file that survives all of them. Nothing is downloaded: weights are random,
data are made up.
"""
