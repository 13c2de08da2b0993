"""Ways to damage pictures, one method a file; found by name through `flawsmith.registry`, never imported from here."""
