"Write `README.md` from `nbs/index.ipynb`: markdown as it is, code with its stored text output"

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def readme(notebook: dict) -> str:
    "Turn a notebook's cells into GitHub Markdown"
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif not source.startswith("#| hide"):
            parts.append(f"```python\n{source}\n```")
            parts += [shown for shown in map(_output, cell.get("outputs", [])) if shown]
    return "\n\n".join(parts) + "\n"


def _output(output: dict) -> str:
    data = output.get("data", {})
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    text = "".join(data.get("text/plain", output.get("text", ""))).strip()
    return f"```\n{text}\n```" if text else ""


if __name__ == "__main__":
    text = readme(json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8")))
    if "--check" in sys.argv:
        sys.exit(
            0
            if (ROOT / "README.md").read_text(encoding="utf-8") == text
            else "README.md is not what nbs/index.ipynb gives; run scripts/make_readme.py"
        )
    (ROOT / "README.md").write_text(text, encoding="utf-8")
