"""Answer states and the teacher made of them: the vectors that the embedder learns."""
