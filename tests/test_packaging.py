"The wheel works, and the light chapters stay light"

import re
import subprocess
import sys
import zipfile

from conftest import ROOT


def python(code: str, **environment) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment or None,
    ).stdout


def test_light_chapters_do_not_import_torch():
    code = (
        "import sys, toolcall.conversation, toolcall.logs, toolcall.formats, toolcall.curate, "
        "toolcall.samples, toolcall.pipeline; "
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    assert python(code).split() == ["False", "False"]


def test_the_wheel_holds_the_package_and_imports(tmp_path):
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(tmp_path),
            str(source),
        ],
        check=True,
    )
    [wheel] = tmp_path.glob("toolcall_tune-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert "toolcall/pipeline/chain.py" in names and "toolcall/sample_logs.jsonl.gz" in names
        assert {"toolcall/page.css", "toolcall/page.js"} <= set(names)
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        archive.extractall(tmp_path / "site")
    assert "Requires-Dist: torch" in metadata and "Provides-Extra: dev" in metadata
    out = python(
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); "
        "import toolcall.logs, toolcall.samples; print(toolcall.__file__); "
        "print(toolcall.logs.read_logs(toolcall.samples.sample_log()).report.records)"
    )
    assert str(tmp_path / "site") in out and int(out.split()[-1]) > 500


def test_links_of_the_readme_lead_somewhere():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", readme)
    lost = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert len(links) > 15 and not lost


def test_the_files_about_the_project_agree():
    import tomllib

    import yaml

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == project["license"]
    assert citation["abstract"].rstrip(".") == project["description"]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    programs = {hook["entry"].split()[0] for one in hooks["repos"] for hook in one["hooks"]}
    assert programs == {"ruff", "nbdev-export", "nbdev-clean", "mypy"}
