"""The archival worker's own programs, with the servers of this machine."""
