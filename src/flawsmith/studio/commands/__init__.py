"""Commands of the command line that the page starts: making, proving, exporting; and the forms that fill them in."""
