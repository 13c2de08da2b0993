"""What a plain sentence asks for: its words, the grammar, and the places that it may name."""
