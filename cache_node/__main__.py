"""``python -m cache_node``."""

from cache_node.main import main

if __name__ == "__main__":
    main()
