"""How the loss of a float16 training is scaled, so that small gradients do not vanish; the same on both backends.

Micikevicius et al. 2017, arXiv:1710.03740, section 3.2: the scale is halved where a gradient overflows, and the step left out;
it is doubled after many good steps.
"""

FIRST = 2.0**15
LARGEST = 2.0**24
STEPS_TO_DOUBLE = 2000
