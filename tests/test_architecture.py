"""The structure that docs/architecture.md promises: one direction of imports, no circles, a known public surface."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import superactivators as sa

ROOT = Path(sa.__file__).parent
GROUND = ("errors", "registry", "ragged", "ranking", "artefacts")
ROOMS = (
    *("data", "models", "states", "concepts", "scores", "baselines"),
    *("detection", "attribution", "analysis", "mechanism", "report", "figures", "study", "paper", "cli"),
)
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "root"


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere in it, in function bodies too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names <= set(MODULES) else names | {node.module}
    return {name for name in found if name in MODULES and name != "superactivators"}


GRAPH = {module: imports_of(path) - {module} for module, path in MODULES.items()}


def test_every_file_is_in_a_known_room() -> None:
    assert {room_of(module) for module in MODULES} == {"root", *GROUND, *ROOMS}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"superactivators"}))
def test_rooms_import_only_from_their_left(module: str) -> None:
    room = room_of(module)
    allowed = set(GROUND) if room in GROUND else {*GROUND, *ROOMS[: ROOMS.index(room) + 1]}
    wrong = {name for name in GRAPH[module] if room_of(name) not in allowed}
    assert not wrong, f"{module} reaches to the right: {sorted(wrong)}"


def test_no_circles_between_files() -> None:
    state: dict[str, str] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != "open", " -> ".join((*path, module))
        if module in state:
            return
        state[module] = "open"
        for name in GRAPH[module]:
            visit(name, (*path, module))
        state[module] = "done"

    for module in MODULES:
        if module != "superactivators":
            visit(module, ())


def test_exported_names_are_exactly_those_promised() -> None:
    assert sa.__all__ == [
        "Backbone",
        "ConceptBank",
        "ConceptDataset",
        "DetectionResult",
        "Detector",
        "ImageSample",
        "KindOptions",
        "LinearSeparators",
        "MeanPrototypes",
        "Span",
        "States",
        "SuperActivatorDetector",
        "SuperActivatorsError",
        "TextSample",
        "Threshold",
        "attribute",
        "compare_studies",
        "detect",
        "diagnose",
        "extract",
        "fit_detector",
        "learn_concepts",
        "load_dataset",
        "open_detector",
        "open_states",
        "read_sae",
        "run_study",
        "states_from_arrays",
        "study_states",
        "wrap_sae",
        "__version__",
    ]
    for name in sa.__all__:
        assert getattr(sa, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sa.nothing


def test_type_checkers_see_the_same_names() -> None:
    seen = re.findall(r"import (\w+) as \1", (ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert sorted(seen) == sorted(set(sa.__all__) - {"__version__"})


def test_importing_the_package_and_asking_for_help_load_nothing_heavy() -> None:
    code = (
        "import sys, superactivators, superactivators.cli.app\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'pyarrow', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_files_stay_small() -> None:
    long = {name: n for name, path in MODULES.items() if (n := len(path.read_text("utf-8").splitlines())) > 450}
    # The phrase bank is data.
    assert set(long) <= {"superactivators.data.phrases"}, long


def test_the_package_speaks_of_itself_alone() -> None:
    texts = [path for path in ROOT.parents[1].rglob("*.md") if ".venv" not in path.parts]
    for path in [*MODULES.values(), *texts]:
        assert not re.search(r"/work/|/root/|\.library", path.read_text(encoding="utf-8")), path
