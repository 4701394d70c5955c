"""Narrower and faster networks out of trained ones: pruning, fusing, imitation."""
