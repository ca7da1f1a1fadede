"""Everything that needs data or gradients: mixing, losses, the loop, evaluation and export."""
