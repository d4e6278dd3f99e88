"""How items are opened: what a seller asks for, and the creations of one moment together."""
