"""The fleet's detectors, judged on simulated cars that nothing was trained on."""
