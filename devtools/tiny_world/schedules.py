"""The published models' schedulers, changed to velocity prediction and a schedule with more final noise."""

from __future__ import annotations

from small_models.parts import DDPM, EULER, PNDM

VELOCITY = {"prediction_type": "v_prediction"}
"""At low noise, a model that predicts the noise must copy it exactly to say anything about the picture, which takes more layers and hours
than these have; a model that predicts the velocity (Salimans and Ho 2022) predicts the picture itself there. Every diffusers scheduler
supports both, according to its config."""
NOISIER = {"beta_schedule": "linear", "beta_start": 0.002, "beta_end": 0.02}
"""A thing in this world is about a hundred latent pixels of one colour. The published schedules end with 1/200 of the picture left, so a
thing still shows in the mean; a model learns to see it there, and then also sees things in the pure noise of its first step (Hoogeboom
et al. 2023). With these betas nothing is left at the end, and a third of the steps decide what the text says."""
SD15 = {**PNDM, **NOISIER, **VELOCITY}
SDXL = {**EULER, **NOISIER, **VELOCITY}
KANDINSKY = {**DDPM, **NOISIER, **VELOCITY}
