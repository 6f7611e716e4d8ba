"""Token states: labels on tokens, the sharded store on disk, extraction, scaling, states made elsewhere."""
