"""Integer arithmetic for the runtime."""
