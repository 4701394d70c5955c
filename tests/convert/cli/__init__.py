"""Tests of convert/cli."""
