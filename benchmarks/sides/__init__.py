"""What sides are made of: shapes, forced lengths, parity checks, doors into both systems."""
