"""The run folder, the protocol of a stage, the records that travel."""
