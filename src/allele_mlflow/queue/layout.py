"""
The bytes on disk: the map of every spool file, and nothing that acts.

Format history: 1 = first (see docs/understanding/queue-format.md).

    streams/<stream_id>/lock          the stream page: who writes, and the counters of what was
    refused
                        events.log    frames: magic, length, crc32, msgpack
                        m-00000000.seg  metric lane: header page, then 32-byte records
                        s-00000000.seg  series lane: header page, then 4 KiB pages
                        spare.seg     the next segment, made ready by the sidecar
                        cursor        two slots, written by the sidecar alone

All integers are little-endian. A record is written once, on zeroed bytes, by one process, and its
last word is never zero: a slot whose last word is zero has not been written (or its writer died in
it).
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from allele_mlflow.errors import ErrorKind, QueueFormatError
from allele_mlflow.records import COUNTED_REASONS, SPOOL_FORMAT, RunStatus

# --- file names ---------------------------------------------------------------------------------

STREAM_PAGE = "lock"
EVENT_LOG = "events.log"
CURSOR = "cursor"
SPARE = "spare.seg"
METRIC_LANE = "m"
SERIES_LANE = "s"


def segment_name(lane: str, index: int) -> str:
    """
    File name of a lane's segment, in an order that sorts.
    """
    return f"{lane}-{index:08d}.seg"


def parse_segment_name(name: str) -> tuple[str, int] | None:
    """
    Lane and index of a segment's file name, or None where it is no such name.
    """
    if len(name) < 14 or name[1] != "-" or not name.endswith(".seg") or name[0] not in "ms":
        return None
    digits = name[2:-4]
    return (name[0], int(digits)) if digits.isdigit() else None


# --- segments -----------------------------------------------------------------------------------

PAGE_BYTES = 4096
HEADER_BYTES = PAGE_BYTES
#: 1 MiB holds 32,640 readings. Larger ones roll less often but cost more to make at the roll.
SEGMENT_BYTES = 1 << 20
SEGMENT_MAGIC = b"ALMQSEG\x00"
#: magic, format, record bytes, segment bytes, created_ns, crc32 of what stands before it.
SEGMENT_HEADER = struct.Struct("<8sIIQqI")

#: timestamp_ns, step, value, word. The word is written last and says that the rest is there.
RECORD = struct.Struct("<qqdQ")
RECORD_BYTES = RECORD.size
#: The store of a mapped lane. One object, for a lane is known by it: each `RECORD.pack_into` is
#: another.
PACK_RECORD = RECORD.pack_into
WORD_OFFSET = 24
#: A record whose time and step are packed already: half the price where several records share them.
RECORD_HEAD = struct.Struct("<qq")
RECORD_BEHIND_HEAD = struct.Struct("<16sdQ")

# --- the word: instance (32 bits) | key id (24 bits) | kind (8 bits), never zero -----------------

KIND_METRIC = 1
KIND_PHASE_BEGIN = 2
KIND_PHASE_END = 3
KIND_SERIES = 4
#: A slot given up after an error: taken, and known to hold nothing.
KIND_VOID = 255
KEY_ID_LIMIT = 1 << 24
#: In a phase's edges: the phase has no step.
NO_STEP = -(1 << 63)
STEP_MIN = -(1 << 63)
STEP_MAX = (1 << 63) - 1


class Word(NamedTuple):
    """
    The parts of a record's last word.
    """

    kind: int
    key_id: int
    instance: int


def pack_word(kind: int, key_id: int, instance: int = 0) -> int:
    """
    The word of a record; never zero, because no kind is.
    """
    return instance << 32 | key_id << 8 | kind


def unpack_word(word: int) -> Word:
    """
    The parts of a word.
    """
    return Word(word & 0xFF, word >> 8 & 0xFFFFFF, word >> 32)


# --- series pages: one head record, then values --------------------------------------------------

#: timestamp_ns, first step, number of values, word. The values have steps first, first + 1, ...
SERIES_HEAD = struct.Struct("<qqQQ")
SERIES_VALUES_OFFSET = SERIES_HEAD.size
SERIES_PAGE_VALUES = (PAGE_BYTES - SERIES_VALUES_OFFSET) // 8

# --- the stream page ----------------------------------------------------------------------------

STREAM_MAGIC = b"ALMQSTR\x00"
#: magic, format, pid, process start time, created_ns, role, crc32 of what stands before it.
STREAM_HEADER = struct.Struct("<8sIIQqII")
ROLE_PRODUCER = 0
#: The sidecar's own stream of resource samples.
ROLE_SAMPLER = 1
COUNTERS_OFFSET = 1024
#: One u64 per reason of records.COUNTED_REASONS, in that order.
COUNTERS = struct.Struct(f"<{len(COUNTED_REASONS)}Q")

#: The owner's farewell once more, for a disk that has no room for its frame: timestamp_ns, and the
#: status as a number from 1 on in the order of FAREWELL_STATUSES; 0: none.
FAREWELL_OFFSET = 512
FAREWELL = struct.Struct("<qB")
FAREWELL_STATUSES: tuple[RunStatus, ...] = ("FINISHED", "FAILED", "KILLED")

# --- event frames -------------------------------------------------------------------------------

FRAME_MAGIC = b"\xa1MQ\xe1"
FRAME_HEAD = struct.Struct("<4sII")
#: A length above this is damage, not a frame.
FRAME_MAX_BYTES = 64 << 20

# --- cursor -------------------------------------------------------------------------------------

CURSOR_MAGIC = b"ALMQCUR\x00"
#: magic, generation, payload length, crc32 of the payload and generation.
CURSOR_HEAD = struct.Struct("<8sQII")
#: Room for some 10,000 segments: those that a handler put aside stay until their writer is gone.
CURSOR_SLOT_BYTES = 256 << 10


class StreamPage(NamedTuple):
    """
    Who writes a stream. `process_start` is the kernel's start time of the pid, to tell a reused
    pid.
    """

    pid: int
    process_start: int
    created_ns: int
    role: int


def encode_segment_header(segment_bytes: int, created_ns: int) -> bytes:
    """
    The first bytes of a segment.
    """
    head = struct.pack(
        "<8sIIQq", SEGMENT_MAGIC, SPOOL_FORMAT, RECORD_BYTES, segment_bytes, created_ns
    )
    return head + struct.pack("<I", zlib.crc32(head))


def check_segment_header(data: bytes, name: str) -> int:
    """
    Size in bytes that the header promises.

    Raises:
        QueueFormatError: not a segment, damaged, or of a newer format, which `facts["version"]`
            says then.
    """
    if len(data) < SEGMENT_HEADER.size or data[:8] != SEGMENT_MAGIC:
        raise QueueFormatError(f"{name}: not a segment", kind=ErrorKind.QUEUE_FORMAT, name=name)
    _, version, record_bytes, segment_bytes, _, crc = SEGMENT_HEADER.unpack_from(data)
    if zlib.crc32(data[: SEGMENT_HEADER.size - 4]) != crc:
        raise QueueFormatError(
            f"{name}: damaged segment header", kind=ErrorKind.QUEUE_FORMAT, name=name
        )
    if version > SPOOL_FORMAT or record_bytes != RECORD_BYTES:
        raise QueueFormatError(
            f"{name}: segment format {version}, records of {record_bytes} bytes; "
            f"this version reads up to format {SPOOL_FORMAT}",
            kind=ErrorKind.QUEUE_FORMAT,
            name=name,
            version=version,
        )
    return int(segment_bytes)


def encode_farewell(timestamp_ns: int, status: RunStatus) -> bytes:
    """
    What stands at FAREWELL_OFFSET of an owner's stream page when it has ended its run.
    """
    return FAREWELL.pack(timestamp_ns, FAREWELL_STATUSES.index(status) + 1)


def decode_farewell(page: bytes) -> tuple[int, RunStatus] | None:
    """
    Time and status of the farewell in a whole stream page, None where there is none.
    """
    if len(page) < FAREWELL_OFFSET + FAREWELL.size:
        return None
    timestamp_ns, number = FAREWELL.unpack_from(page, FAREWELL_OFFSET)
    if not 1 <= number <= len(FAREWELL_STATUSES):
        return None
    return timestamp_ns, FAREWELL_STATUSES[number - 1]


def encode_stream_page(page: StreamPage) -> bytes:
    """
    The first bytes of the stream page.
    """
    head = struct.pack(
        "<8sIIQqI",
        STREAM_MAGIC,
        SPOOL_FORMAT,
        page.pid,
        page.process_start,
        page.created_ns,
        page.role,
    )
    return head + struct.pack("<I", zlib.crc32(head))


def decode_stream_page(data: bytes, name: str) -> StreamPage:
    """
    Who writes the stream.

    Raises:
        QueueFormatError: not a stream page, damaged, or of a newer format.
    """
    if len(data) < STREAM_HEADER.size or data[:8] != STREAM_MAGIC:
        raise QueueFormatError(f"{name}: not a stream page", kind=ErrorKind.QUEUE_FORMAT, name=name)
    _, version, pid, start, created_ns, role, crc = STREAM_HEADER.unpack_from(data)
    if zlib.crc32(data[: STREAM_HEADER.size - 4]) != crc:
        raise QueueFormatError(
            f"{name}: damaged stream page", kind=ErrorKind.QUEUE_FORMAT, name=name
        )
    if version > SPOOL_FORMAT:
        raise QueueFormatError(
            f"{name}: format {version}; this version reads up to {SPOOL_FORMAT}",
            kind=ErrorKind.QUEUE_FORMAT,
            name=name,
        )
    return StreamPage(pid, start, created_ns, role)
