"""What a run does, one stage a file: each reads the run folder and writes the run folder."""
