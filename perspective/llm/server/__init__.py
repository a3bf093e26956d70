"""OpenAI-compatible servers: settings, clients, and a pool that distributes questions."""
