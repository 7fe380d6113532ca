"""Where a model looks: saliency maps, their controls, and how they agree with boxes and masks."""
