"""Reads what DWARF and .eh_frame are made of: numbers of all widths, blocks, encoded pointers.

Formats: DWARF 5, 7.6 (LEB128); LSB Core 5.0, 10.5 (DW_EH_PE, the pointer encodings).
"""

_LEB_MAX = 10
"""Bytes of a number of 64 bits in LEB128."""
_U64 = 0xFFFFFFFFFFFFFFFF

# pointer encodings, DW_EH_PE_*
ABSOLUTE, OMIT, SIGNED_4 = 0x00, 0xFF, 0x0B
PC_RELATIVE, DATA_RELATIVE, INDIRECT = 0x10, 0x30, 0x80
_ULEB, _SLEB = 0x01, 0x09
_FIXED = {ABSOLUTE: (8, False), 0x02: (2, False), 0x03: (4, False), 0x04: (8, False)}
_FIXED |= {0x0A: (2, True), SIGNED_4: (4, True), 0x0C: (8, True)}
"""Encoding to its size in bytes, and whether it has a sign."""


class CallFrameError(Exception):
    """The call frame information is damaged, or of a kind that no compiler writes."""


class Cursor:
    """Reads numbers from bytes that lie at an ELF address; running out is a CallFrameError."""

    def __init__(self, data: bytes, address: int) -> None:
        self._data = data
        self._start = address
        self.position = 0

    @property
    def address(self) -> int:
        """The ELF address of the next byte."""
        return self._start + self.position

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.position >= len(self._data)

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        if count < 0:
            raise CallFrameError("a length that leads backwards")
        self._take(count)

    def rest(self) -> bytes:
        """Return what is left."""
        return self._take(len(self._data) - self.position)

    def u1(self) -> int:
        """Return a byte."""
        return self._take(1)[0]

    def fixed(self, size: int, *, signed: bool = False) -> int:
        """Return a number of so many bytes."""
        return int.from_bytes(self._take(size), "little", signed=signed)

    def uleb(self) -> int:
        """Return a ULEB128 number."""
        return self._leb()[0]

    def sleb(self) -> int:
        """Return an SLEB128 number."""
        value, bits, negative = self._leb()
        return value - (1 << bits) if negative else value

    def block(self) -> bytes:
        """Return a block that its length precedes."""
        return self._take(self.uleb())

    def text(self) -> str:
        """Return a text that a zero byte ends."""
        end = self._data.find(b"\0", self.position)
        if end < 0:
            raise CallFrameError("a text without an end")
        text = self._take(end - self.position)
        self.skip(1)
        return text.decode("latin-1")

    def pointer(self, encoding: int, data_base: int) -> int:
        """Return a pointer in a DW_EH_PE encoding."""
        at, form, relative = self.address, encoding & 0x0F, encoding & 0x70
        if encoding & INDIRECT or relative not in (0, PC_RELATIVE, DATA_RELATIVE):
            if encoding != OMIT and form in _FIXED:
                self.skip(_FIXED[form][0])
                return 0  # a personality routine's, which is not looked at
            raise CallFrameError(f"pointer encoding {encoding:#x}")
        if form == _ULEB:
            value = self.uleb()
        elif form == _SLEB:
            value = self.sleb()
        elif form in _FIXED:
            size, signed = _FIXED[form]
            value = self.fixed(size, signed=signed)
        else:
            raise CallFrameError(f"pointer encoding {encoding:#x}")
        base = {0: 0, PC_RELATIVE: at, DATA_RELATIVE: data_base}[relative]
        return (value + base) & _U64

    def _leb(self) -> tuple[int, int, bool]:
        value = bits = 0
        for _ in range(_LEB_MAX):
            byte = self.u1()
            value |= (byte & 0x7F) << bits
            bits += 7
            if not byte & 0x80:
                return value, bits, bool(byte & 0x40)
        raise CallFrameError("a number of more than 64 bits")

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._data):
            raise CallFrameError("cut short")
        taken = self._data[self.position : end]
        self.position = end
        return taken
