"""What all experiments share: where they run, what they write down, and what they refuse beforehand."""
