"""A page about one model on one annotated set: how good, how fast, how sure, where it fails."""
