"""Copies an executed notebook without what only its machine said: `python docs/slim.py EXECUTED docs/tutorial.ipynb`.

Warnings name folders of the machine, and a picture is kept once, as PNG.
"""

import json
import sys
from pathlib import Path

executed, slim = map(Path, sys.argv[1:])
notebook = json.loads(executed.read_text(encoding="utf-8"))
notebook["metadata"] = {"kernelspec": notebook["metadata"]["kernelspec"], "language_info": {"name": "python"}}
for cell in notebook["cells"]:
    if cell["cell_type"] == "code":
        cell["metadata"] = {}
        cell["outputs"] = [each for each in cell["outputs"] if each.get("name") != "stderr"]
        for output in cell["outputs"]:
            output.get("data", {}).pop("image/jpeg", None)
slim.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
