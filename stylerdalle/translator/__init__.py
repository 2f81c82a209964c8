"""The translator: the model, its styles, and the translation of a picture's tokens."""
