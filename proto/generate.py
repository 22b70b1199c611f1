"""Writes `gen/` from the protos, and checks both.

python proto/generate.py             write gen/
python proto/generate.py --check     fail where gen/ is not what the protos say
python proto/generate.py --lint      fail where the protos lack comments or style, or break the API as last released
python proto/generate.py --release   keep the protos as the API as last released
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path

import openapi
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GEN = ROOT / "gen"
RELEASED = PROTO / "released.binpb"
GOOGLEAPIS = distribution("googleapis-common-protos").locate_file("")
# The virtual environment's programs, whether or not it is activated.
PROGRAMS = Path(sys.executable).parent
# Envoy prints the details of an error only where it has their descriptors; no proto of ours imports them.
ERROR_DETAILS = ("google/protobuf/any.proto", "google/rpc/error_details.proto", "google/rpc/status.proto")


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_mutually_exclusive_group()
    for command in (check, lint, release):
        commands.add_argument(f"--{command.__name__}", dest="command", action="store_const", const=command)
    parser.set_defaults(command=write)
    run: Callable[[Path], int] = parser.parse_args().command
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder))


def write(scratch: Path) -> int:
    """Bring gen/ up to date. Touches only the files that change."""
    generate(scratch)
    for how, name in differences(scratch, GEN):
        print(f"{how:8} {name}")
        if how == "extra":
            (GEN / name).unlink()
        else:
            (GEN / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(scratch / name, GEN / name)
    return 0


def check(scratch: Path) -> int:
    """Compare gen/ with what the protos say."""
    generate(scratch)
    found = list(differences(scratch, GEN))
    if not found:
        return 0
    listed = "\n".join(f"  {how:8} {name}" for how, name in found)
    return fail(f"gen/ is not what the protos say. Run `make generate` and commit its result.\n{listed}")


def lint(scratch: Path) -> int:
    """Run buf over the protos: the rules of buf.yaml, then compatibility with the API as last released.

    buf gets an image from protoc, since it would ask its registry for the protos of Google that ours import.
    """
    image = scratch / "image.binpb"
    image.write_bytes(compile_image(scratch).SerializeToString())
    buf: list[str | Path] = [PROGRAMS / "buf", "--config", ROOT / "buf.yaml"]
    if subprocess.run([*buf, "lint", image], check=False).returncode:
        return fail("The protos break a rule of buf.yaml.")
    # Google's protos come with the installed package; how they change is not ours to decide.
    breaking = [*buf, "breaking", image, "--against", RELEASED, "--exclude-path", "google"]
    if subprocess.run(breaking, check=False).returncode:
        return fail("The protos break callers of the API as last released. Add fields and RPCs beside the old ones.")
    return 0


def release(scratch: Path) -> int:
    """Keep the protos as those that later ones must stay compatible with."""
    RELEASED.write_bytes(descriptors(compile_image(scratch)))
    return 0


def generate(out: Path) -> None:
    """Write into an empty folder all that gen/ holds."""
    names = protos()
    image = compile_image(out)
    with_services = [file.name for file in image.file if file.service and file.name in names]
    protoc(f"--python_out={out}", *mypy_plugin("mypy", out), *names)
    protoc(f"--grpc_python_out={out}", *mypy_plugin("mypy_grpc", out), *with_services)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    document = openapi.build(image, version=project["version"], description=project["description"])
    package = out / "nimbus"
    (package / "openapi.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (package / "descriptors.binpb").write_bytes(descriptors(with_heads(image)))
    (package / "py.typed").touch()


def compile_image(scratch: Path) -> FileDescriptorSet:
    """Return our protos with their comments, what they import, and the details of errors."""
    path = scratch / "compiled.binpb"
    protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={path}", *protos(), *ERROR_DETAILS)
    image = FileDescriptorSet.FromString(path.read_bytes())
    path.unlink()
    return image


def descriptors(image: FileDescriptorSet) -> bytes:
    """Return a FileDescriptorSet without comments, serialized."""
    bare = FileDescriptorSet()
    bare.CopyFrom(image)
    for file in bare.file:
        file.ClearField("source_code_info")
    return bare.SerializeToString(deterministic=True)


def with_heads(image: FileDescriptorSet) -> FileDescriptorSet:
    """Return what Envoy routes by: each GET route takes HEAD as well."""
    routes = FileDescriptorSet.FromString(image.SerializeToString())
    for method in (method for file in routes.file for service in file.service for method in service.method):
        rule = method.options.Extensions[annotations_pb2.http]
        for path in [binding.get for binding in (rule, *rule.additional_bindings) if binding.HasField("get")]:
            rule.additional_bindings.add().custom.CopyFrom(http_pb2.CustomHttpPattern(kind="HEAD", path=path))
    return routes


def protos() -> list[str]:
    """Return our protos, in a fixed order, by the name under which they import each other."""
    return sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))


def protoc(*arguments: str) -> None:
    """Run the compiler, which explains itself on stderr; its failure ends the program."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{GOOGLEAPIS}", *arguments]
    if subprocess.run(command, check=False).returncode:
        sys.exit(fail("The protos do not compile."))


def mypy_plugin(name: str, out: Path) -> tuple[str, str]:
    """Return the arguments that have one of mypy-protobuf's plugins write type stubs."""
    return f"--plugin=protoc-gen-{name}={PROGRAMS / f'protoc-gen-{name}'}", f"--{name}_out=quiet:{out}"


def differences(fresh: Path, present: Path) -> Iterator[tuple[str, Path]]:
    """Yield `missing`, `extra` or `changed`, and the file that is so in `present`."""
    expected, found = files(fresh), files(present)
    for name in sorted(expected | found):
        if name not in found:
            yield "missing", name
        elif name not in expected:
            yield "extra", name
        elif (fresh / name).read_bytes() != (present / name).read_bytes():
            yield "changed", name


def files(folder: Path) -> set[Path]:
    """Return the files below a folder, but for Python's caches."""
    return {
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"
    }


def fail(message: str) -> int:
    """Say what is wrong and what to do; returns the exit status."""
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
