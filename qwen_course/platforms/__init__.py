"""The platforms that the family runs on, one module each, all with the same face.

A module says `why_not()` this computer cannot use it, has `export` where the platform
wants the weights in a form of its own, and a `Runner` that writes.
"""
