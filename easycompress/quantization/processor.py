"""What the processor's integer instructions can do."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

EXACT = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"})
"""Instructions that sum products of 8-bit numbers in 32 bits, as Linux names them."""

X86 = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})


def lacks_vnni(cpuinfo: str | None = None, machine: str | None = None) -> bool:
    """Tell whether 8-bit products may overflow on this processor, so that weights should keep to 7 bits.

    Without VNNI, ONNX Runtime multiplies unsigned activations by signed weights with VPMADDUBSW, which adds two
    products in 16 bits and saturates: 2 x 255 x 127 = 64770 is cut to 32767, 2 x 255 x 64 = 32640 fits. ARM multiplies
    into 32 bits. `cpuinfo` is the text of /proc/cpuinfo and `machine` the name of the architecture, both this
    computer's unless given. An x86 processor that doesn't say what it has is taken for one that lacks it.
    """
    if (machine or platform.machine()).lower() not in X86:
        return False
    if cpuinfo is None:
        try:
            cpuinfo = CPUINFO.read_text()
        except OSError:
            return True
    flags = (line.partition(":")[2].split() for line in cpuinfo.splitlines() if line.startswith("flags"))
    return EXACT.isdisjoint(next(flags, []))


def reduced(reduce_range: bool | None) -> bool:  # noqa: FBT001 - a setting as it stands
    """Return a `reduce_range` setting, decided by the processor where it is None."""
    return lacks_vnni() if reduce_range is None else reduce_range
