"""The messages of pprof's profile.proto, made at run time: no protoc is needed."""

from functools import cache
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_PACKAGE = "perftools.profiles"
_SCALARS = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}
_MESSAGES = {
    "Profile": """
        1 *ValueType sample_type, 2 *Sample sample, 3 *Mapping mapping, 4 *Location location,
        5 *Function function, 6 *string string_table, 9 int64 time_nanos, 10 int64 duration_nanos,
        11 ValueType period_type, 12 int64 period, 13 *int64 comment, 14 int64 default_sample_type
    """,
    "ValueType": "1 int64 type, 2 int64 unit",
    "Sample": "1 *uint64 location_id, 2 *int64 value, 3 *Label label",
    "Label": "1 int64 key, 2 int64 str, 3 int64 num, 4 int64 num_unit",
    "Mapping": """
        1 uint64 id, 2 uint64 memory_start, 3 uint64 memory_limit, 4 uint64 file_offset,
        5 int64 filename, 6 int64 build_id, 7 bool has_functions, 8 bool has_filenames,
        9 bool has_line_numbers, 10 bool has_inline_frames
    """,
    "Location": "1 uint64 id, 2 uint64 mapping_id, 3 uint64 address, 4 *Line line",
    "Line": "1 uint64 function_id, 2 int64 line",
    "Function": "1 uint64 id, 2 int64 name, 3 int64 system_name, 4 int64 filename",
}
"""Number, type (``*``: repeated) and name of the fields that leaktop writes."""


@cache
def profile_class() -> Any:
    """Return the class of ``perftools.profiles.Profile``; its numbers of names are indices."""
    file = FileDescriptorProto(name="leaktop/profile.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for words in fields.split(","):
            number, kind, field = words.split()
            repeated, kind = kind.startswith("*"), kind.lstrip("*")
            added = message.field.add(name=field, number=int(number))
            added.label = (
                FieldDescriptorProto.LABEL_REPEATED
                if repeated
                else FieldDescriptorProto.LABEL_OPTIONAL
            )
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type = FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = f".{_PACKAGE}.{kind}"
    pool = DescriptorPool()  # of its own: another library may know the same messages
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Profile"))
