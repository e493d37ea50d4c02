"""Is it true? Small models trained on the mix and on controls."""
