"""Which generator, masks and number of samples serve each defect type: `choose`."""
