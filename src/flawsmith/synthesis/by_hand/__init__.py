"""Painting by hand: one defect into a mask that somebody drew, on one photograph."""
