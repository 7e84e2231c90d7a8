"""The published models' schedulers, for models that predict the velocity of a noising that goes further than theirs."""

from __future__ import annotations

from small_models.parts import DDPM, EULER, PNDM

VELOCITY = {"prediction_type": "v_prediction"}
"""A model that predicts the noise has to copy it exactly to say anything of the picture where there is little of it, which takes more
layers and hours than these have; one that predicts the velocity (Salimans and Ho 2022) says the picture itself there. Every scheduler of
diffusers takes both, and reads in its config which it is."""
NOISIER = {"beta_schedule": "linear", "beta_start": 0.002, "beta_end": 0.02}
"""A thing of this world is some hundred latent pixels of one colour. Through the published schedules' noise, of 1 part of picture in 200
at the very end, it still shows by its mean; a model learns to see it there, and at its first step, where there is nothing but noise, sees
it too (Hoogeboom et al. 2023). With these all is gone by the end, and what the text says is decided in a third of the steps."""
SD15 = {**PNDM, **NOISIER, **VELOCITY}
SDXL = {**EULER, **NOISIER, **VELOCITY}
KANDINSKY = {**DDPM, **NOISIER, **VELOCITY}
