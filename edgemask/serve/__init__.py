"""The web page of a running engine: live overlay, figures, settings. Standard library only."""
