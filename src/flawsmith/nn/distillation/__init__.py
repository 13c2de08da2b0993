"""Few steps: a student network, and what it learns from a teacher that takes many."""
