"""``python -m broadcast_service``."""

from broadcast_service.main import main

if __name__ == "__main__":
    main()
