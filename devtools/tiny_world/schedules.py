"""The published models' schedulers, for models that predict the velocity of the noising rather than the noise."""

from __future__ import annotations

from relay_dev.small_parts import DDPM, EULER, PNDM

VELOCITY = {"prediction_type": "v_prediction"}
"""A model that predicts the noise has to copy it exactly to say anything of the picture where there is little of it, which takes more
layers and hours than these have; one that predicts the velocity (Salimans and Ho 2022) says the picture itself there. Every scheduler of
diffusers takes both, and reads in its config which it is."""
SD15 = {**PNDM, **VELOCITY}
SDXL = {**EULER, **VELOCITY}
KANDINSKY = {**DDPM, **VELOCITY}
