"""HTTP around a bundle: a recording and phrases go in, the named sounds come out.

Read from :mod:`service.app` down. Nothing here imports torch, nor anything of ``training``.
"""
