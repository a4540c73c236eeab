"""Local work: what an edge computes, tells and has done by itself, uplink or not."""
