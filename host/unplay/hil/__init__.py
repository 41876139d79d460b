"""Hardware in the loop: a pytest plugin, and the standard run that judges a device by figures."""
