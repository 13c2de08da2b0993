"""Bytes <-> pixels: the table of what is read, TIFF, and every other format. Only `data.images` imports this folder."""
