"""ControlNet units and Kandinsky's depth hint, fitted to a run."""
