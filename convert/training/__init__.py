"""Training: targets, losses, the step, the loop, distillation, several machines."""
