"""What `prove` trains to see whether samples help."""
