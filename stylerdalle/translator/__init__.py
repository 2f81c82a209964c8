"""The translator: model, styles, and how a picture's tokens go through it."""
