"""Messages that leave the house: what they say, and the ways out. Nothing here knows Dagster or the store."""
