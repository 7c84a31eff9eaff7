"""Video: the detector's objects followed from frame to frame (:mod:`sam_detect.video.stream`)."""
