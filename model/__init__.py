"""What a separator is: shared by training and serving.

One alphabet of shapes runs through the project:

    B batch     C channels   T samples    F STFT bins   K bands
    N frames    P prompts    L tokens     D token features   E embedding features

Arrays are float32 unless a docstring says otherwise; time is in seconds where a name ends in ``_s``, level in decibels
where it ends in ``_db``.
"""
