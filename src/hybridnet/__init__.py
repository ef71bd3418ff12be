"""Container network for hybrid clouds: underlay and overlay pods side by side."""
