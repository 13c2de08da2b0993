"""The studio: draw masks, paint defects and judge samples in the browser, on this machine."""
