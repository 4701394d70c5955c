"""COCO-format datasets: reading, checking, splitting, importing; training samples out of them."""
