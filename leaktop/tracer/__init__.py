"""The live source: everything that touches the kernel and the process that is traced."""

from leaktop.source import SourceError


class TracerError(SourceError):
    """Tracing cannot start or go on; exit code 3 for privileges and BPF, 4 for the target."""
