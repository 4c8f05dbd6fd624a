"""The stubs are those of proto/, and proto/ is a document that a caller can work from."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = sorted((ROOT / "proto").glob("opportune/v1/*.proto"))


def test_the_committed_stubs_are_what_proto_generates(tmp_path: Path) -> None:
    """Byte for byte; `make proto` makes them so again."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate(tmp_path)
    fresh = {path.name: path.read_bytes() for path in (tmp_path / "opportune" / "v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / "opportune" / "v1").glob("*_pb2*.py*")}
    assert len(fresh) == 4 * len(PROTOS)
    assert sorted(fresh) == sorted(committed)
    assert [name for name in fresh if fresh[name] != committed[name]] == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[descriptor_pb2.FileDescriptorProto]:
    """The files of proto/ with their comments."""
    out = tmp_path_factory.mktemp("proto") / "set"
    include = Path(grpc_tools.__file__).parent / "_proto"
    paths = [f"-I{ROOT / 'proto'}", f"-I{include}", f"--descriptor_set_out={out}"]
    assert protoc.main(["protoc", *paths, "--include_source_info", *map(str, PROTOS)]) == 0
    return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def places(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """(path in the source info, name) of all that a caller meets. Numbers are the fields of descriptor.proto."""
    for m, message in enumerate(file.message_type):
        yield (4, m), message.name
        for f, field in enumerate(message.field):
            yield (4, m, 2, f), f"{message.name}.{field.name}"
    for e, enum in enumerate(file.enum_type):
        yield (5, e), enum.name
        for v, value in enumerate(enum.value):
            yield (5, e, 2, v), value.name
    for s, service in enumerate(file.service):
        yield (6, s), service.name
        for r, method in enumerate(service.method):
            yield (6, s, 2, r), f"{service.name}.{method.name}"


def test_all_that_a_caller_meets_has_a_comment(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    named = uncommented = 0
    for file in files:
        commented = {tuple(at.path) for at in file.source_code_info.location if at.leading_comments.strip()}
        missing = [name for path, name in places(file) if path not in commented]
        assert missing == [], file.name
        named += len(list(places(file)))
        uncommented += len(missing)
    assert (named > 100, uncommented) == (True, 0)


def test_enums_begin_with_unspecified(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    """0 is what an older or careless caller sends: it must mean "not said". Values carry the name of their enum."""
    enums = [enum for file in files for enum in file.enum_type]
    names = {"Stage", "OfferKind", "DegradedReason", "LineageAction", "TimelineKind", "LeadState"}
    assert {enum.name for enum in enums} == names
    for enum in enums:
        prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in enum.name).lstrip("_")
        assert (enum.value[0].number, enum.value[0].name) == (0, f"{prefix}_UNSPECIFIED")
        assert all(value.name.startswith(f"{prefix}_") for value in enum.value)


def test_the_engine_uses_the_numbers_of_proto(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    """Stages, kinds and degraded reasons appear in the engine as numbers; they are those of the wire."""
    from engine import decide, decider
    from engine.catalogue import OFFER_KINDS
    from engine.lifecycle import Stage
    from engine.links import Action
    from engine.timeline import Kind

    numbers = {value.name: value.number for file in files for enum in file.enum_type for value in enum.value}
    assert {f"STAGE_{stage.name}": int(stage) for stage in Stage} == {
        name: number for name, number in numbers.items() if name.startswith("STAGE_") and number
    }
    assert {f"TIMELINE_KIND_{kind.name}": int(kind) for kind in Kind} == {
        name: number for name, number in numbers.items() if name.startswith("TIMELINE_KIND_") and number
    }
    assert {f"OFFER_KIND_{kind.upper()}": number for kind, number in OFFER_KINDS.items()}.items() <= numbers.items()
    assert {f"LINEAGE_ACTION_{action.name}": int(action) for action in Action}.items() <= numbers.items()
    from engine.leads.lead import State

    assert {f"LEAD_STATE_{state.name}": int(state) for state in State}.items() <= numbers.items()
    assert numbers["DEGRADED_REASON_DEADLINE_NEAR"] == decider.DEADLINE_NEAR
    assert [
        numbers[f"DEGRADED_REASON_{name}"]
        for name in ("STATE_STORE_UNAVAILABLE", "COMMIT_FAILED", "STATE_UNREADABLE", "POLICY_UNAVAILABLE")
    ] == [
        decider.STATE_STORE_UNAVAILABLE, decider.COMMIT_FAILED, decide.STATE_UNREADABLE, decide.POLICY_UNAVAILABLE
    ]  # fmt: skip
