"""What somebody who is signed in finds again on every device: what they watch, and on what they have bid."""
