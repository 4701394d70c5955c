"""Measuring on the board it is about: time per stage, memory, heat; a table, JSON, a report.

Each configuration (pack, threads, short side) runs in a process of its own
(:mod:`edgemask.bench.worker`), so that its peak memory and its first result are its own.
"""
