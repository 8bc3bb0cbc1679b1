"""Any mesh to a closed one: `ladder` is the way, each further file a step of it."""
