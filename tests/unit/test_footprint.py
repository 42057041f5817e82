"""What leaktop itself takes, as the kernel says."""

import os
import resource

from leaktop.tracer.footprint import memory_of


def test_resident_memory_is_this_process_s() -> None:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 1 << 20 < memory_of(()).resident <= most + (1 << 20)


def test_a_descriptor_that_the_kernel_says_nothing_of_is_left_out() -> None:
    reader, writer = os.pipe()
    try:
        assert memory_of([("config", reader)]).maps == {}
    finally:
        os.close(reader)
        os.close(writer)
