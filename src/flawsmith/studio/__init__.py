"""The studio: draw masks, make, judge, prove and export samples in the browser."""
