"""Answer states, and the teacher made from them: the vectors that the embedder learns."""
