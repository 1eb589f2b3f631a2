"""The autoencoder on a real car: healthy trips of one Toyota Etios, faults injected into some.

`python -m models.carobd` splits the trips, trains on the first part, sets thresholds on the second
and measures detection, delay and false alarms on the third, beside plain baselines.
"""
