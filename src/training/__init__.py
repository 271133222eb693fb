"""What a training run is made of: step, optimizers, schedule, evaluation, and going on."""
