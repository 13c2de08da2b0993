"""Annotation files: damage that is drawn in a file of a labelling tool instead of a mask picture.

polygons       masks -> outlines, and back
run_lengths    masks -> the run lengths of COCO and of Label Studio, and back
marked         what every format is read into
coco, labelme, yolo, label_studio       a format each
parts          a part of such a file as the mask of a photograph
"""
