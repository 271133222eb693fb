"""What every wing rests on: errors, files that are whole or not there, locks, logs, worker processes, native builds."""
