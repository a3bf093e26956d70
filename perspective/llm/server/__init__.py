"""OpenAI-compatible servers: settings, clients, a pool that shares questions."""
