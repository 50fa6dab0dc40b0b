"""What is right and what goes wrong, a module a lesson."""
