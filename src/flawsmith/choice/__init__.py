"""The choice made for the user: which generator, masks and number of samples serve each defect type."""
