"""The modules of AnomalyDiffusion (Hu et al., AAAI 2024): words learned from shots and masks, attention re-weighted."""
