"""QueryPaths: what people do next, or did before."""
