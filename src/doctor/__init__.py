"""Why rows are scored badly: checks of rows against what their model was trained on."""
