"""Who calls: which tokens are believed, and whom they name."""
