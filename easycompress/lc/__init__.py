"""The learning-compression algorithm: its projections, the loop, and the techniques made of them."""
