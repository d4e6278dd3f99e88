"""``python -m load_tests``: what ``make load`` runs."""

from load_tests.run.command import main

main()
