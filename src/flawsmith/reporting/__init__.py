"""What a person reads: report.html and report.md."""
