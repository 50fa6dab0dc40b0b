"""The applications of lesson 11, small and whole: the pocket models or real ones."""
