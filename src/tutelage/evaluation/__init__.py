"""What improved, by signals that training never saw."""
