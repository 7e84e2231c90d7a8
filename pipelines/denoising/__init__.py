"""One denoising run: its job, steps, scheduler, mask, tiles and options."""
