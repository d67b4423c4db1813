"""The loader, step by step: bytes to rows, rows to conversations, conversations to bulk requests."""
