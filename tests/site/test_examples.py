"""The curl lines of the documents, run as they stand there against a running site."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sales.identity import mint
from sales.models import Sale
from tests.running_site import Site
from tests.waitingroom.standing import queue_up

ROOT = Path(__file__).resolve().parents[2]

# Curl is not on every machine that has Python and make. This knows the options that the documents use.
CURL = """import argparse, requests
parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("-s", action="store_true")
parser.add_argument("-i", action="store_true")
parser.add_argument("-X", default="")
parser.add_argument("-H", action="append", default=[])
parser.add_argument("--json", default="")
asked = parser.parse_args()
headers = {"Accept": "*/*"} | dict(line.split(": ", 1) for line in asked.H)
if asked.json:
    headers |= {"Content-Type": "application/json", "Accept": "application/json"}
method = asked.X or ("POST" if asked.json else "GET")
body = asked.json.encode() or None
answer = requests.request(method, asked.url, headers=headers, data=body, allow_redirects=False)
if asked.i:
    print("HTTP/1.1", answer.status_code, answer.reason)
    for name, value in answer.headers.items():
        print(name.lower() + ": " + value)
    print()
print(answer.text)
"""


LINE = "Waiting in line"


def lines(document: str, section: str) -> str:
    """The shell blocks of one section, or of the whole document but LINE, without what a reader fills in."""
    text = (ROOT / document).read_text()
    before, _, after = text.partition(f"## {section or LINE}\n")
    inside, _, behind = after.partition("\n## ")
    text = inside if section else before + behind
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)
    return re.sub(r"^(SITE|SALE|TOKEN)=.*\n", "", "".join(blocks), flags=re.M)


@pytest.fixture(scope="module")
def sale(site: Site) -> Sale:
    site.consumer()
    return site.sell(allotment=10)


def run(site: Site, folder: Path, script: str, **known: str) -> str:
    """What the lines print, with our curl in front of any other."""
    curl = folder / "curl"
    (folder / "curl.py").write_text(CURL)
    # By way of sh: the path of an interpreter in a first line must not have a space.
    curl.write_text('#!/bin/sh\nexec "$PYTHON" "$0.py" "$@"\n')
    curl.chmod(0o755)
    answer = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ
        | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": sys.executable, "SITE": site.url}
        | known,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


@pytest.mark.parametrize(
    ("document", "section", "curls"), [("README.md", "The API in five lines", 5), ("docs/api.md", "", 4)]
)
def test_the_examples_work(
    site: Site, sale: Sale, tmp_path: Path, document: str, section: str, curls: int
) -> None:
    script = lines(document, section)
    assert len(re.findall(r"\bcurl ", script)) == curls
    said = run(site, tmp_path, script, SALE=sale.slug, TOKEN=mint(f"ann-{document}"))
    assert f'"slug":"{sale.slug}"' in said
    assert re.search(r'"state":"(queued|held)"', said)
    [order] = set(re.findall(r'"order_id":"([^"]+)"', said))
    assert said.count(order) >= curls - 1
    assert "/problems#" not in said
    if document == "README.md":
        assert "idempotency-replayed: true" in said


def test_the_examples_of_the_line_work(site: Site, tmp_path: Path) -> None:
    site.gatekeeper()
    sale = queue_up(site)
    said = run(site, tmp_path, lines("docs/api.md", LINE), SALE=sale.slug, TOKEN=mint("ann"))
    assert said.count(f'"sale":"{sale.slug}"') == 2
    assert '"segments":[' in said
    assert '"ticket":"' in said
