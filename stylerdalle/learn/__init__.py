"""What every training shares: pictures, crops, prepared tokens, runs, schedules, targets, pretraining."""
