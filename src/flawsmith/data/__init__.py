"""Pictures on disk and in memory: codecs, folder layouts, splits, windows, masks, and a factory of procedural parts."""
