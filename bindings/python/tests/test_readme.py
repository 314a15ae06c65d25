"""The examples of the pages run as they stand, those that train apart, which the tests of `compress` are."""

import re

import pytest
from conftest import ROOT


@pytest.mark.parametrize(("page", "number"), [("README.md", 0), ("bindings/python/README.md", 0)])
def test_examples_run(page, number, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    running, *_ = re.split(r"(?m)^dense = ", blocks[number])
    monkeypatch.chdir(ROOT)
    exec(running, {})
    assert re.search(r"^\[\d\]$", capsys.readouterr().out, re.M)
