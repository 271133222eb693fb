"""What a training run is made of: step, optimizers, schedule, evaluation, checkpoints, and the run's folder."""
