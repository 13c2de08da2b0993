"""How the built-in weights were made."""
