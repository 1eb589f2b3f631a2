"""Remaining life on NASA's turbofan engines: the LSTM of `models.rul` where others have been, too.

`python -m models.cmapss` trains it on engines that ran to failure (C-MAPSS FD001), once for each
seed, and measures it on NASA's test engines beside plain baselines on the same windows. Simulated
turbofans are no cars: this says whether the network and its interval hold, not how a car fails.
"""
