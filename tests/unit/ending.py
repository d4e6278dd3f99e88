"""A program that does what its argument says, for tests of how programs end."""

import asyncio  # noqa: F401
import atexit  # noqa: F401
import logging.handlers  # noqa: F401
import os  # noqa: F401
import sys
import threading  # noqa: F401
import time  # noqa: F401

if __name__ == "__main__":
    exec(sys.argv[1])
