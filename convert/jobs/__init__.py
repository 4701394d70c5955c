"""Work on many images: what is kept on the way, and how it spreads over a cluster."""
