"""Pictures: files in and out, colour, resampling, tiling, contact sheets."""
