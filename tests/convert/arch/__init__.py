"""Tests of convert/arch."""
