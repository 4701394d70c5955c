"""Takes: what was seen in a series of frames, who is who in it, and the formats others read.

A take is a file of JSON Lines, one frame a line (:mod:`.writer`, :mod:`.reader`); it is complete up
to the last line however the recording ended. :mod:`.tables`, :mod:`.coco`, :mod:`.openpose` and
:mod:`.silhouettes` turn it into what spreadsheets, annotation tools and motion capture read.
"""
