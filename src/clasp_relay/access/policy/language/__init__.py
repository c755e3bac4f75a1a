"""What policies are written in: JSON keys, paths with captures, encoded maps, and the question that checks decide."""
