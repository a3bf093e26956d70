"""Fine-tuning: settings and recipes, distillation, losses, batch samplers."""
