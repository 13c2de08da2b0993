"""Photographs, masks and windows: how pictures are read, divided and cut."""
