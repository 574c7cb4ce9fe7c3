"""Modules that only pass their options on: name, arguments, options and a shape of input."""

SIGNAL, MAP, VOLUME = (2, 4, 9), (2, 4, 6, 7), (2, 2, 4, 5, 6)
MODULES = [
    *((name, (), {}, SIGNAL) for name in ("ReLU6", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "Sigmoid", "Tanh")),
    ("LeakyReLU", (0.2,), {}, SIGNAL),
    ("ELU", (0.7,), {}, SIGNAL),
    ("GELU", (), {"approximate": "tanh"}, SIGNAL),
    ("GELU", (), {}, SIGNAL),
    ("Softplus", (2.0, 3.0), {}, SIGNAL),
    ("GLU", (1,), {}, SIGNAL),
    *((f"{kind}Pad1d", ((2, 1),), {}, SIGNAL) for kind in ("Reflection", "Replication", "Circular", "Zero")),
    *((f"{kind}Pad2d", ((2, 1, 0, 3),), {}, MAP) for kind in ("Reflection", "Replication", "Circular", "Zero")),
    *(
        (f"{kind}Pad3d", ((2, 1, 0, 3, 1, 1),), {}, VOLUME)
        for kind in ("Reflection", "Replication", "Circular", "Zero")
    ),
    ("ConstantPad1d", (2, 1.5), {}, SIGNAL),
    ("ConstantPad2d", (2, 1.5), {}, MAP),
    ("ConstantPad3d", (2, 1.5), {}, VOLUME),
    ("Upsample", (), {"scale_factor": 1.5, "mode": "bilinear", "align_corners": False}, MAP),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, MAP),
    ("UpsamplingBilinear2d", (), {"size": (9, 8)}, MAP),
    ("AvgPool3d", (2,), {}, VOLUME),
    ("AdaptiveAvgPool3d", ((2, 3, 4),), {}, VOLUME),
    ("AdaptiveMaxPool1d", (4,), {}, SIGNAL),
    ("AdaptiveMaxPool2d", ((3, 4),), {}, MAP),
    ("AdaptiveMaxPool3d", ((2, 3, 4),), {}, VOLUME),
    ("MaxPool3d", (2,), {}, VOLUME),
    ("BatchNorm3d", (2,), {}, VOLUME),
    ("InstanceNorm1d", (4,), {"affine": True}, SIGNAL),
    ("InstanceNorm2d", (4,), {"affine": True}, MAP),
    ("InstanceNorm3d", (2,), {}, VOLUME),
    ("LayerNorm", (9,), {}, SIGNAL),
    ("GroupNorm", (2, 4), {}, MAP),
    ("RMSNorm", (9,), {}, SIGNAL),
]
