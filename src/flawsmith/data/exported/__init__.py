"""What all exporters share: the names of files, pictures as files, and which photographs are for validation.

names          names that every file system takes
pictures       a picture written as it is wanted: copied, or encoded again in 8 bits or as it is
reads_features an exporter that asks the run's feature extractor
arrangement    what goes out, a record for each picture, divided by photograph
"""
