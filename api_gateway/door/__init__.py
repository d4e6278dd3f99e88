"""What is asked of a request before anything is done for it: from where it comes, and how much that one may ask for."""
