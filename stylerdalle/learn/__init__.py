"""What every training shares: pictures, crops, prepared tokens, the loop, runs, schedules, targets; and pretraining."""
