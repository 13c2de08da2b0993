"""Arithmetic that nobody plugs in, and that several rooms need: numpy and OpenCV alone, arrays in, numbers out."""
