"""The layouts as construct declarations: the readable definition, which also encodes.

Nothing at run time imports this: property tests hold the fast decoders to it. Needs `construct`.
"""
