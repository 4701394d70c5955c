"""Running on a live source: the board, pacing by temperature, the engine, and systemd.

The submodules are imported by name: ``doctor`` reads the board also where NumPy does not load.
"""
