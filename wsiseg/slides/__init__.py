"""Reading slides: one module a format in `readers`, one way of resampling, one place that chooses."""
