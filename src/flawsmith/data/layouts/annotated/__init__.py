"""Layouts in which a labelling tool's files say what is damaged on which photograph; `data.annotations` reads them.

coco, yolo, labelme, label_studio    a layout each: outlines and run lengths in text
lookout                              manifests that name coloured masks
listed                               what they share: annotation files below the root, and the photographs they name
unlabelled                           pictures that none of these files tells of, and whether they are normal parts
"""
