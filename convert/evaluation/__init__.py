"""Predictions of a model for a dataset, and their accuracy."""
