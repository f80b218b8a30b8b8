"""Ready-made jobs: functions that return a Spec."""
