"""The run folder, the protocol of a stage, and the records that travel between stages."""
