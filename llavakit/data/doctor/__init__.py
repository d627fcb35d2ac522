"""The doctor: reads every record and every image of a data set, and says what must be mended."""
