"""Stage 2: embed, convert judgments, fine-tune."""
