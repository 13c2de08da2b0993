"""Rulers of the pictures, and the proof: does it help a detector?"""
