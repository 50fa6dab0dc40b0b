"""A JupyterHub for a workshop: settings, seats, and what learners are handed."""
