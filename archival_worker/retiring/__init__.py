"""Takes the logs of items that were over long ago out of the archive, once their exports were read back."""
