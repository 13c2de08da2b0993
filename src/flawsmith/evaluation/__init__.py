"""Metrics of the samples, and the proof: do they help a detector?"""
