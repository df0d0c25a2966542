"""What tests have workers call, apart from the tests: a worker that imports these modules need not import pytest and hypothesis
as well, which takes longer than most tests do.
"""
