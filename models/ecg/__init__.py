"""Networks for electrocardiograms: (N, leads, samples) binary32 to logits (N, num_classes).

The architectures of the PTB-XL benchmark (Strodthoff et al. 2021) and of Shkolnikov (arXiv 2603.28040), each with a
``_tiny`` variant for CPUs. All take any length that their strides leave something of.
"""
