"""Error-compression curves over techniques: planned, measured point by point, drawn, and turned into results."""
