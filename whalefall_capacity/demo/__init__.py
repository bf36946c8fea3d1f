"""A fleet of real servers on this machine, with databases of different sizes and a made-up past."""
