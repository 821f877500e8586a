"""From the name of a model to the model: where it is, who wrote its file, its weights onto a device."""
