"""Layouts in which folders and names say everything: a mask is a picture of its own, found by its name.

mvtec      <product>/train/good, test/<defect type>, ground_truth/<defect type>
visa       <product>/Data/Images and Data/Masks, with image_anno.csv
pairs      <defect type>/, masks among the photographs
pattern    the user's own templates
"""
