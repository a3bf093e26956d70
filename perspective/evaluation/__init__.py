"""Everything that reads labels: clustering scores, judge accuracy, calibration, before and after."""
