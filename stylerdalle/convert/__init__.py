"""Foreign weights to our model files: one converter per file, their registry, and the download of official weights."""
