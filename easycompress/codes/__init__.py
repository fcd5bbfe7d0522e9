"""The stored forms of a weight tensor."""
