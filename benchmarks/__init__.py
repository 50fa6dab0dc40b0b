"""What the course measures of itself; tests never assert a time."""
