"""The modules of the papers, under their names: ControlNet, LoRA, SAIM and BCM, CSM, ASEA, SGA."""
