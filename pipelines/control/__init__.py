"""ControlNet units and Kandinsky's depth hint, checked and scaled for a run."""
