"""Zones and events: who enters a part of the image, and what is done about it.

What decides is pure and knows neither clock nor disk: :mod:`.zones` (is this mask in the zone),
:mod:`edgemask.tracking` (is it the same one as before), :mod:`.rules` (has it been there long
enough). What acts is kept apart: :mod:`.store` (snapshots within a disk budget), :mod:`.hook` (a
program per event), :mod:`.watcher` (the threads that bring both together).
"""
